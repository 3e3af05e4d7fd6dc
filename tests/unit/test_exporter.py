"""The exporter: everything from one look, honest counters, and no part takes another along."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from docs.generate import DOCS
from docs.metric_table import metrics_page
from listener import look
from listener.exporter import Exporter, exposition, registry_for
from listener.meter import Meter
from listener.tally import Timings
from schemas import metrics
from schemas.errors import BrokerUnavailable, ChannelUnavailable, RenderFailed
from schemas.notifications import ChannelKind
from schemas.runs import DeadEntry, Entry
from store import tables
from store.deliveries import DeliveryTicket
from store.events import record_dead
from store.figures import save_statistics
from store.runs import settle_dead
from tasks import reports
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats

STREAM = "scans:events"


class Scrapes:
    """An exporter and what it said last."""

    def __init__(self, parts: Any) -> None:
        self.registry = registry_for(parts)
        self.found: dict[tuple[str, tuple[str, ...]], float] = {}

    def look(self) -> Scrapes:
        text = generate_latest(self.registry).decode()
        self.found = samples(text)
        return self

    def value(self, metric: metrics.Metric, *labels: str, part: str = "") -> float | None:
        return self.found.get((metric.name + part, labels))


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What broker and workers say."""
    said: dict[str, Any] = {
        "depth": {"default": 0, "reports": 3, "notifications": 0},
        "workers": {"default": 1, "reports": 2, "notifications": 1},
    }

    def ask(name: str) -> Callable[..., Any]:
        def answer(*arguments: str) -> Any:
            value = said[name]
            if isinstance(value, BaseException):
                raise value
            if callable(value):
                return value(*arguments)
            return value[arguments[0]] if arguments else value

        return answer

    monkeypatch.setattr(look, "queue_depth", ask("depth"))
    monkeypatch.setattr(look, "count_workers", ask("workers"))
    return said


@pytest.fixture
def light(make_parts: Any, join: Any, answers: Any) -> Any:
    join()
    return make_parts(formats=("csv",))


def travel(parts: Any, ticket: Any) -> None:
    render_formats(parts, ticket.run_id, ticket.formats)
    for planned in settle(parts, ticket.run_id, ticket.attempt):
        try_delivery(parts, planned)


def test_a_look_says_how_far_everything_is(
    light: Any, client: Any, record: Any, make_scan: Any, clock: Any
) -> None:
    record(light, make_scan())
    dead = record(light, make_scan(2))
    with light.ledger.write() as connection:
        settle_dead(connection, dead.run_id, "gone", clock())
        record_dead(
            connection, DeadEntry(Entry(STREAM, "9-0", {b"data": b"{"}), "malformed"), clock()
        )
        save_statistics(connection, "celery_health", {}, clock())
    client.xadd(STREAM, {"data": "{}"}, id=f"{int(clock().timestamp() - 60) * 1000}-0")
    clock.forward(30)
    scrape = Scrapes(light).look()
    assert scrape.value(metrics.STREAM_UNREAD, STREAM) == 1
    assert scrape.value(metrics.STREAM_PENDING, STREAM) == 0
    assert scrape.value(metrics.STREAM_OLDEST, STREAM) == 90
    assert scrape.value(metrics.QUEUE_MESSAGES, "reports") == 3
    assert scrape.value(metrics.WORKERS, "reports") == 2
    states = ("recorded", "dispatched", "done", "dead")
    assert [scrape.value(metrics.RUNS, state) for state in states] == [1, 0, 0, 1]
    assert scrape.value(metrics.OLDEST_RUN) == 30
    assert scrape.value(metrics.DEAD_LETTERS) == 1, "a dead run is no dead letter"
    assert scrape.value(metrics.BEAT_TICK) == clock().timestamp() - 30


def test_deliveries_are_counted_by_channel_and_state(
    light: Any, record: Any, make_scan: Any, subscribe: Any, published: Any, clock: Any
) -> None:
    subscribe(light, "anna", (ChannelKind.WEBHOOK, ChannelKind.EMAIL), events=("scan.completed",))
    scrape = Scrapes(light).look()
    light.channel(ChannelKind.WEBHOOK).script = [ChannelUnavailable("503")]
    travel(light, record(light, make_scan()))
    clock.forward(61)
    scrape.look()
    assert scrape.value(metrics.WAITING_DELIVERIES, "webhook", "pending") == 1
    assert scrape.value(metrics.WAITING_DELIVERIES, "email", "pending") == 0
    assert scrape.value(metrics.OLDEST_DELIVERY) == 60.5
    assert scrape.value(metrics.SETTLED_DELIVERIES, "sent") == 1
    assert scrape.value(metrics.DELIVERY_ATTEMPTS, "webhook", "retry") == 1
    assert scrape.value(metrics.DELIVERY_ATTEMPTS, "email", "sent") == 1
    assert scrape.value(metrics.DELIVERY_SECONDS, "email", part="_count") == 1


def test_counters_begin_at_zero_and_count_each_row_once(
    light: Any, record: Any, make_scan: Any, clock: Any
) -> None:
    travel(light, record(light, make_scan()))
    scrape = Scrapes(light).look()
    assert scrape.value(metrics.RENDER_SECONDS, "csv", part="_count") == 0, "made before our start"
    for number in (2, 3):
        travel(light, record(light, make_scan(number)))
        for _ in range(2):
            clock.forward(15)
            scrape.look()
        assert scrape.value(metrics.RENDER_SECONDS, "csv", part="_count") == number - 1


def test_counters_never_fall_when_cleanup_deletes_rows(
    light: Any, record: Any, make_scan: Any, subscribe: Any, clock: Any
) -> None:
    subscribe(light, events=("scan.completed",))
    scrape = Scrapes(light).look()
    travel(light, record(light, make_scan()))
    scrape.look()
    before = dict(scrape.found)
    with light.ledger.write() as connection:
        for table in (tables.attempts, tables.deliveries, tables.reports):
            connection.execute(delete(table))
    clock.forward(3600)
    scrape.look()
    counted = [key for key in before if key[0].endswith(("_total", "_count", "_sum", "_bucket"))]
    ours = [key for key in counted if key[0].startswith("scanherald_")]
    assert ours
    assert {key: scrape.found[key] for key in ours} == {key: before[key] for key in ours}
    assert scrape.value(metrics.DELIVERY_ATTEMPTS, "webhook", "sent") == 1


def test_what_happened_while_nobody_scraped_is_counted(
    light: Any, record: Any, make_scan: Any, clock: Any
) -> None:
    scrape = Scrapes(light).look()
    travel(light, record(light, make_scan()))
    clock.forward(7200)
    scrape.look()
    assert scrape.value(metrics.RENDER_SECONDS, "csv", part="_count") == 1


def test_a_format_that_cannot_be_rendered_is_counted_as_a_failure(
    light: Any, record: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrape = Scrapes(light).look()

    def render(*_: Any) -> bytes:
        raise RenderFailed("no")

    monkeypatch.setattr(reports, "render", render)
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    scrape.look()
    assert scrape.value(metrics.RENDER_FAILURES, "csv") == 1
    assert scrape.value(metrics.RENDER_SECONDS, "csv", part="_count") == 0


@pytest.mark.parametrize("down", ["redis", "broker", "ledger", "artifacts"])
def test_a_part_that_is_down_takes_no_other_along(
    down: str, light: Any, server: Any, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrape = Scrapes(light)
    if down == "redis":
        server.connected = False
    elif down == "broker":
        answers["depth"] = BrokerUnavailable("refused")
    elif down == "ledger":
        light.ledger.close()
        (light.settings.data_dir / "ledger.sqlite3").unlink()  # what opens now has no tables
    else:
        folder = light.settings.data_dir / "artifacts"
        folder.write_bytes(b"no folder")
    scrape.look()
    parts = ("redis", "broker", "ledger", "artifacts")
    assert {name: scrape.value(metrics.UP, name) for name in parts} == {
        name: 0.0 if name == down else 1.0 for name in parts
    }
    assert (scrape.value(metrics.STREAM_UNREAD, STREAM) is None) is (down == "redis")
    assert (scrape.value(metrics.QUEUE_MESSAGES, "reports") is None) is (down == "broker")
    assert (scrape.value(metrics.RUNS, "dead") is None) is (down == "ledger")
    assert (scrape.value(metrics.LATENCY, down)) is None
    assert scrape.value(metrics.RENDER_SECONDS, "csv", part="_count") == 0, "counters stay"


def test_a_part_that_hangs_is_down_and_is_not_asked_twice_at_once(light: Any, answers: Any) -> None:
    hung, asked = threading.Event(), []

    def hang(name: str) -> int:
        asked.append(name)
        hung.wait(20)
        return 0

    answers["depth"] = hang
    watcher = look.Watcher(light, patience_s=0.2)
    for _ in range(3):
        found = watcher.look()
        assert found.parts["broker"].error == "no answer within 0.2 s"
        assert found.parts["ledger"].is_up
    assert asked == ["default"]
    hung.set()


def test_a_bug_in_one_look_is_loud_and_hides_nothing(light: Any, answers: Any) -> None:
    answers["depth"] = ZeroDivisionError("bug")
    with capture_logs() as logs:
        scrape = Scrapes(light).look()
    assert [line["part"] for line in logs if line["event"] == "look_crashed"] == ["broker"]
    assert scrape.value(metrics.UP, "broker") == 0
    assert scrape.value(metrics.UP, "ledger") == 1


def test_every_metric_of_the_list_is_published_and_no_other(light: Any, clock: Any) -> None:
    with light.ledger.write() as connection:
        save_statistics(connection, "celery_health", {}, clock())
    for listed, text in (
        (metrics.EXPORTED, exposition(light)),
        (metrics.LISTENER, generate_latest(Meter().registry).decode()),
    ):
        families = {
            family.name: family
            for family in text_string_to_metric_families(text)
            if not family.name.startswith("process_")
        }
        assert {metric.name.removesuffix("_total") for metric in listed} == set(families)
        for metric in listed:
            family = families[metric.name.removesuffix("_total")]
            assert (family.type, family.documentation) == (metric.kind.value, metric.help)
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(metric.labels), metric.name


def test_names_follow_prometheus() -> None:
    for metric in (*metrics.EXPORTED, *metrics.LISTENER):
        assert metric.name.startswith("scanherald_")
        assert metric.name.endswith("_total") == (metric.kind is metrics.MetricKind.COUNTER)
        assert metric.help.endswith(".")
        assert not {"id", "domain", "subscriber", "address"} & set(metric.labels)


def test_the_page_lists_them_all() -> None:
    page = DOCS / "metrics.md"
    assert page.read_text(encoding="utf-8") == metrics_page(page)
    for metric in (*metrics.EXPORTED, *metrics.LISTENER):
        assert f"`{metric.name}`" in metrics_page(page)


def test_a_histogram_counts_up_to_its_bounds_and_beyond() -> None:
    timings = Timings((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        timings.observe(seconds)
    assert timings.cumulative == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert timings.total_s == pytest.approx(7.65)


def test_scrapes_at_once_take_their_turns(light: Any, record: Any, make_scan: Any) -> None:
    scrape = Scrapes(light).look()
    travel(light, record(light, make_scan()))
    threads = [threading.Thread(target=scrape.look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scrape.look().value(metrics.RENDER_SECONDS, "csv", part="_count") == 1


def test_registering_asks_nobody(light: Any) -> None:
    assert list(Exporter(light).describe()) == []


def test_the_command_prints_one_look(light: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(light.settings.data_dir))
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)
    result = CliRunner().invoke(app, ["metrics", "--once"], catch_exceptions=False)
    assert result.exit_code == 0
    assert samples(result.stdout)["scanherald_up", ("ledger",)] == 1


def test_an_untried_delivery_is_no_attempt(light: Any) -> None:
    scrape = Scrapes(light).look()
    try_delivery(light, DeliveryTicket("unknown", 1))
    scrape.look()
    assert scrape.value(metrics.DELIVERY_ATTEMPTS, "webhook", "sent") == 0
