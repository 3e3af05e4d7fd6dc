"""One trace from the scanner to the webhook, with ids in it and nothing else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.testing import capture_logs

from listener.consumer import Listener
from schemas.errors import ChannelUnavailable
from schemas.notifications import ChannelKind
from schemas.settings import load_settings
from store.deliveries import DeliveryTicket
from tasks import tracing_setup
from tasks.finish import settle
from tasks.heart import Heart
from tasks.notifications import try_delivery
from tasks.otel import OpenTelemetry
from tasks.reports import render_formats
from tasks.tracing import NoTracer
from tasks.tracing_setup import open_tracer

TRACE = "0af7651916cd43dd8448eb211c80319c"
SCANNERS = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SCANNERS}-01"
STREAM = "scans:events"


class Spans:
    """What a process would have sent."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all() if span.name == name]
        return span

    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


def span_id(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


def parent_id(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def traced(make_parts: Callable[..., Any], spans: Spans) -> Any:
    parts = make_parts(formats=("csv", "json"))
    parts.tracer = OpenTelemetry(spans.exporter, at_once=True)
    return parts


@pytest.fixture
def listen(client: Any, join: Any) -> Callable[..., list[Any]]:
    """Publish an entry and let a listener take it; returns the tickets it dispatched."""

    def listen(parts: Any, data: bytes, **attributes: str) -> list[Any]:
        client.xadd(STREAM, {"data": data, **attributes})
        stop = threading.Event()
        streams = join("one", now=False)
        read, tickets = streams.read_new, []

        def read_new(count: int, acks: Any = ()) -> Any:
            found = read(count, acks)
            if not found:
                stop.set()
            return found

        streams.read_new = read_new
        heart = Heart("listener", parts.settings)
        Listener(streams, parts, tickets.extend, lambda: 0, stop, heart).run()
        return tickets

    return listen


def travel(parts: Any, ticket: Any, rows: Any) -> Any:
    """The rest of the road; returns the message that was sent."""
    render_formats(parts, ticket.run_id, ticket.formats)
    for planned in settle(parts, ticket.run_id, ticket.attempt):
        try_delivery(parts, planned)
    return parts.channel(ChannelKind.WEBHOOK).sent


def test_one_trace_leads_from_the_scanner_to_the_webhook(
    traced: Any, spans: Spans, listen: Any, subscribe: Any, make_scan: Any, rows: Any
) -> None:
    subscribe(traced, events=("scan.completed",))
    (ticket,) = listen(traced, make_scan(), traceparent=TRACEPARENT)
    (message,) = travel(traced, ticket, rows)
    assert {f"{span.context.trace_id:032x}" for span in spans.all()} == {TRACE}
    record = spans.named("record scan.completed")
    assert parent_id(record) == SCANNERS
    for name in ("render csv", "render json", "finish", "deliver webhook"):
        assert parent_id(spans.named(name)) == span_id(record), name
    sent = span_id(spans.named("deliver webhook"))
    assert message.notification.traceparent == f"00-{TRACE}-{sent}-01"


@pytest.mark.parametrize("attributes", [{}, {"traceparent": "nonsense"}])
def test_an_event_without_a_context_begins_a_trace_of_its_own(
    attributes: dict[str, str],
    traced: Any,
    spans: Spans,
    listen: Any,
    subscribe: Any,
    make_scan: Any,
    rows: Any,
) -> None:
    subscribe(traced, events=("scan.completed",))
    (ticket,) = listen(traced, make_scan(), **attributes)
    travel(traced, ticket, rows)
    assert len({span.context.trace_id for span in spans.all()}) == 1
    assert parent_id(spans.named("record scan.completed")) is None


def test_a_scanner_that_does_not_sample_is_followed_without_a_span(
    traced: Any, spans: Spans, listen: Any, subscribe: Any, make_scan: Any, rows: Any
) -> None:
    subscribe(traced, events=("scan.completed",))
    (ticket,) = listen(traced, make_scan(), traceparent=f"00-{TRACE}-{SCANNERS}-00")
    (message,) = travel(traced, ticket, rows)
    assert not spans.all()
    assert message.notification.traceparent.startswith(f"00-{TRACE}-")
    assert message.notification.traceparent.endswith("-00")


def test_spans_hold_ids_and_nothing_of_the_scan_or_of_whom_it_is_told(
    traced: Any,
    spans: Spans,
    listen: Any,
    subscribe: Any,
    make_scan: Any,
    rows: Any,
    published: Any,
) -> None:
    subscribe(traced, events=("scan.completed",))
    traced.channel(ChannelKind.WEBHOOK).script = [
        ChannelUnavailable("https://anna.example/webhook?token=secret answered 503")
    ]
    (ticket,) = listen(traced, make_scan(domain="secret.example"))
    travel(traced, ticket, rows)
    said = " ".join(span.to_json() for span in spans.all())
    for word in ("example", "token", "anna", "_ads", "503"):
        assert word not in said, word
    keys = {key for span in spans.all() for key in span.attributes or {}}
    assert keys == {
        f"scanherald.{name}"
        for name in (
            "stream",
            "entry_id",
            "run_id",
            "attempt",
            "format",
            "delivery_id",
            "channel",
            "number",
        )
    }
    failed = spans.named("deliver webhook")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "ChannelUnavailable"
    assert not failed.events, "an exception's text may quote an address"


def test_a_batch_that_the_ledger_refused_leaves_no_span(
    traced: Any, spans: Spans, listen: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from listener import consumer
    from schemas.errors import LedgerUnavailable

    real, failures = consumer.events.record_batch, iter([LedgerUnavailable("locked")])

    def record_batch(*arguments: Any, **options: Any) -> Any:
        for error in failures:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(consumer.events, "record_batch", record_batch)
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: self.is_set())
    listen(traced, make_scan())
    assert len(spans.all()) == 1


def test_without_tracing_the_scanners_context_is_passed_on_as_it_came(
    make_parts: Any, listen: Any, subscribe: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(formats=("csv",))
    assert isinstance(parts.tracer, NoTracer)
    subscribe(parts, events=("scan.completed",))
    (ticket,) = listen(parts, make_scan(), traceparent=TRACEPARENT)
    (message,) = travel(parts, ticket, rows)
    assert message.notification.traceparent == TRACEPARENT


@pytest.mark.parametrize(
    ("settings", "is_on"),
    [
        ({}, False),
        ({"otel_traces_exporter": "none"}, False),
        ({"otel_traces_exporter": ""}, False),
        ({"otel_traces_exporter": "console"}, True),
        ({"otel_traces_exporter": "console", "otel_sdk_disabled": True}, False),
        ({"otel_exporter_otlp_endpoint": "http://127.0.0.1:1"}, True),
        (
            {
                "otel_exporter_otlp_endpoint": "http://127.0.0.1:1",
                "otel_traces_exporter": "none",
            },
            False,
        ),
    ],
)
def test_tracing_is_on_when_opentelemetrys_own_variables_say_so(
    settings: dict[str, Any], is_on: bool, clean_environment: None
) -> None:
    tracer = open_tracer(load_settings(**settings))
    assert tracer.is_on is is_on
    tracer.close()


def test_tracing_that_is_not_installed_is_said_and_stops_nothing(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tasks.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in [name for name in sys.modules if name.startswith("opentelemetry.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with capture_logs() as logs:
        monkeypatch.setattr(tracing_setup, "log", __import__("structlog").get_logger("x"))
        tracer = open_tracer(load_settings(otel_traces_exporter="otlp"))
    assert not tracer.is_on
    assert [line["event"] for line in logs] == ["tracing_not_installed"]


def test_a_process_that_does_not_trace_imports_nothing_of_it() -> None:
    code = (
        "import sys; from schemas.settings import load_settings; from tasks import app, wiring;"
        "app.loader.import_default_modules(); assert not wiring.wire(load_settings()).tracer.is_on;"
        "import listener.consumer;"
        # redis-py imports parts of OpenTelemetry by itself where it finds it
        "print({'tasks.otel', 'opentelemetry.sdk.trace'} & set(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.strip() == "set()"


def test_a_delivery_without_a_trace_is_sent_all_the_same(
    traced: Any, spans: Spans, record: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(traced, events=("schedule.failed",))
    ticket = record(traced, b"{}", type="schedule.failed")
    (planned,) = settle(traced, ticket.run_id, 1)
    try_delivery(traced, DeliveryTicket(planned.delivery_id, 1))
    assert {span.name for span in spans.all()} == {"finish", "deliver webhook"}
