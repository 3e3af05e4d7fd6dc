"""What a listener says of its own loop, in its memory and over HTTP."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from listener.consumer import Listener
from listener.meter import Meter
from listener.serving import served
from schemas import metrics
from schemas.errors import InvalidSettings
from tasks.heart import Heart

STREAM = "scans:events"


def fetch(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        return str(answer.read().decode())


def value(meter: Meter, metric: metrics.Metric, part: str = "", **labels: str) -> float | None:
    return meter.registry.get_sample_value(metric.name + part, labels)


@pytest.fixture
def listen(parts: Any, client: Any, join: Any) -> Callable[..., Meter]:
    """Let a listener take what is there; returns what it counted."""

    def listen(depths: Any = (), consumer: str = "one") -> Meter:
        stop, waiting = threading.Event(), iter(depths)
        streams = join(consumer, now=False)
        read = streams.read_new

        def read_new(count: int, acks: Any = ()) -> Any:
            found = read(count, acks)
            if not found:
                stop.set()
            return found

        streams.read_new = read_new
        meter = Meter()
        heart = Heart("listener", parts.settings)
        Listener(streams, parts, lambda _: None, lambda: next(waiting, 0), stop, heart, meter).run()
        return meter

    return listen


def test_entries_are_counted_by_what_they_were(
    listen: Any, client: Any, make_scan: Any, clock: Any
) -> None:
    for data in (make_scan(), make_scan(), make_scan(2), b"{"):
        client.xadd(STREAM, {"data": data})
    meter = listen()
    assert value(meter, metrics.ENTRIES_READ) == 4
    assert [
        value(meter, metrics.ENTRIES_RECORDED, outcome=outcome)
        for outcome in ("new", "repeat", "dead")
    ] == [2, 1, 1]
    assert value(meter, metrics.BATCH_SECONDS, "_count") == 2, "one entry first, then the rest"
    assert value(meter, metrics.DISPATCH_SECONDS, "_count") == 2
    assert value(meter, metrics.LAST_TURN) == clock().timestamp()
    assert value(meter, metrics.BACKPRESSURE) == 0


def test_a_listener_that_waits_for_workers_says_so(
    listen: Any, client: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    from prometheus_client import Gauge

    kept = Gauge.set

    def see(gauge: Gauge, number: float) -> None:
        if gauge._name == metrics.BACKPRESSURE.name:
            seen.append(float(number))
        kept(gauge, number)

    monkeypatch.setattr(Gauge, "set", see)
    client.xadd(STREAM, {"data": make_scan()})
    listen(depths=[5000, 5000, 0])
    assert seen[:3] == [1.0, 1.0, 0.0]


def test_a_poison_entry_is_counted_once_it_is_left_dead(
    listen: Any, client: Any, join: Any, make_scan: Any, parts: Any
) -> None:
    entry_id = client.xadd(STREAM, {"data": make_scan()}).decode()
    join("one").read_new(10)
    for look in range(1, 5):
        client.xclaim(STREAM, "scanherald", "one", 0, [entry_id], retrycount=9)
        if look <= 3:
            with parts.ledger.write() as connection:
                from schemas.runs import DeadEntry, Entry
                from store.events import bury

                bury(connection, DeadEntry(Entry(STREAM, entry_id, {}), "died"), parts.clock())
    meter = listen()
    assert value(meter, metrics.ENTRIES_RECORDED, outcome="dead") == 1
    assert value(meter, metrics.ENTRIES_RECORDED, outcome="new") == 0


def test_metrics_are_served_until_the_end() -> None:
    meter = Meter()
    meter.read.inc(3)
    with served(meter.registry, "127.0.0.1", 0) as port:
        families = {family.name for family in text_string_to_metric_families(fetch(port))}
        assert "scanherald_listener_read_entries" in families
        assert not [name for name in families if name.endswith("_created")]
        with pytest.raises(InvalidSettings, match=rf"127\.0\.0\.1:{port}.*choose another"):
            served(meter.registry, "127.0.0.1", port).__enter__()
    with pytest.raises(OSError, match="refused"):
        fetch(port)
