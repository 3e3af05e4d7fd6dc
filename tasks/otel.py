"""Tracing by OpenTelemetry's SDK.  Imported only where tracing is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tasks.tracing import Attribute, SpanKind

KINDS = {
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
}

_w3c = TraceContextTextMapPropagator()


def span_exporter(name: str) -> SpanExporter:
    """By its standard name: otlp (over HTTP) or console.  Reads its own OTEL_ variables."""
    return ConsoleSpanExporter() if name == "console" else OTLPSpanExporter()


class OpenTelemetrySpan:
    """A span that knows what continues from it."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _w3c.inject(carrier, trace.set_span_in_context(span))
        self.traceparent: str | None = carrier.get("traceparent")

    def end(self, **attributes: Attribute) -> None:
        """The work is done."""
        self._span.set_attributes(_named(attributes))
        self._span.end()

    def fail(self, error: BaseException) -> None:
        """It ended by an error; of that only the type is said."""
        self._span.set_status(Status(StatusCode.ERROR, type(error).__name__))


class OpenTelemetry:
    """A tracer with a provider of its own: nothing global, so one per process after each fork."""

    is_on = True

    def __init__(self, exporter: SpanExporter, *, at_once: bool = False) -> None:
        found = Resource.create()
        if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):  # nobody named it
            found = found.merge(Resource({SERVICE_NAME: "scanherald"}))
        self._provider = TracerProvider(resource=found)
        self._provider.add_span_processor(
            SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
        )
        self._tracer = self._provider.get_tracer("scanherald", version("scanherald"))

    def begin(
        self,
        name: str,
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        at: datetime | None = None,
        **attributes: Attribute,
    ) -> OpenTelemetrySpan:
        """See ``Tracer``.  A parent that is no traceparent begins a new trace."""
        above = _w3c.extract({"traceparent": parent} if parent else {})
        return OpenTelemetrySpan(
            self._tracer.start_span(
                name,
                above,
                KINDS[kind],
                _named(attributes),
                start_time=None if at is None else int(at.timestamp() * 1e9),
            )
        )

    @contextmanager
    def span(
        self,
        name: str,
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,
        **attributes: Attribute,
    ) -> Iterator[OpenTelemetrySpan]:
        """See ``Tracer``."""
        begun = self.begin(name, parent, kind, at=None, **attributes)
        try:
            yield begun
        except BaseException as error:
            begun.fail(error)
            raise
        finally:
            begun.end()

    def close(self) -> None:
        """Hand over what was not sent yet."""
        self._provider.shutdown()


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Our own attributes under our own name."""
    return {f"scanherald.{name}": value for name, value in attributes.items()}
