"""``scanherald metrics``: everything computed when Prometheus asks, from one look.

The list of what is published, with every explanation, is ``schemas/metrics.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from listener.look import Look, Watcher
from listener.tally import Tally, Timings
from schemas import metrics
from schemas.notifications import ChannelKind
from schemas.runs import DeliveryState
from store.gauges import LedgerGauges
from tasks.wiring import Wiring

WAITING = (DeliveryState.PENDING, DeliveryState.HELD, DeliveryState.SENDING)


class Exporter(Collector):
    """Turns looks into metrics.  Safe between threads: scrapes take their turns."""

    def __init__(self, parts: Wiring) -> None:
        self._tally = Tally()
        self._watcher = Watcher(parts, self._tally.look)
        self._turn = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing: asked when it is registered, and no look belongs there."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Look, and say what was found.  A part that is down takes only its own along."""
        with self._turn:
            look = self._watcher.look()
            yield _gauge(metrics.BUILD, {(version("scanherald"),): 1})
            yield _gauge(metrics.UP, {(n,): float(part.is_up) for n, part in look.parts.items()})
            yield _gauge(
                metrics.LATENCY,
                {
                    (name,): part.latency_s
                    for name, part in look.parts.items()
                    if part.latency_s is not None
                },
            )
            yield from _of_streams(look)
            if look.broker is not None:
                waiting, workers = look.broker.waiting, look.broker.workers
                yield _gauge(metrics.QUEUE_MESSAGES, {(n,): c for n, c in waiting.items()})
                yield _gauge(metrics.WORKERS, {(n,): c for n, c in workers.items()})
            if look.ledger is not None:
                yield from _of_ledger(look.ledger, self._tally, look.at)
            yield from _of_tally(self._tally)


def registry_for(parts: Wiring) -> CollectorRegistry:
    """A registry with the exporter, and with the memory and CPU of its process."""
    registry = CollectorRegistry()
    registry.register(Exporter(parts))
    ProcessCollector(registry=registry)
    return registry


def exposition(parts: Wiring) -> str:
    """One look in Prometheus's text format."""
    return generate_latest(registry_for(parts)).decode()


def _of_streams(look: Look) -> Iterator[Metric]:
    if look.streams is None:
        return
    found = {(lag.stream,): lag for lag in look.streams}
    yield _gauge(metrics.STREAM_ENTRIES, {name: lag.length for name, lag in found.items()})
    yield _gauge(
        metrics.STREAM_UNREAD,
        {name: lag.unread for name, lag in found.items() if lag.unread is not None},
    )
    yield _gauge(metrics.STREAM_PENDING, {name: lag.pending for name, lag in found.items()})
    yield _gauge(metrics.STREAM_OLDEST, {name: lag.oldest_s or 0 for name, lag in found.items()})
    yield _gauge(metrics.STREAM_CONSUMERS, {name: lag.consumers for name, lag in found.items()})


def _of_ledger(gauges: LedgerGauges, tally: Tally, now: datetime) -> Iterator[Metric]:
    states = dict(gauges.runs)
    if tally.ended is not None:
        states |= tally.ended.runs
        yield _gauge(
            metrics.SETTLED_DELIVERIES, {(s,): n for s, n in tally.ended.deliveries.items()}
        )
    yield _gauge(metrics.RUNS, {(state,): count for state, count in states.items()})
    yield _gauge(metrics.OLDEST_RUN, {(): _age(gauges.oldest_unfinished, now)})
    yield _gauge(metrics.DEAD_LETTERS, {(): gauges.dead_letters})
    yield _gauge(
        metrics.WAITING_DELIVERIES,
        {
            (kind.value, state.value): gauges.deliveries.get((kind.value, state.value), 0)
            for kind in ChannelKind
            for state in WAITING
        },
    )
    yield _gauge(metrics.OLDEST_DELIVERY, {(): _age(gauges.oldest_due, now)})
    yield _gauge(
        metrics.DISABLED_ADDRESSES,
        {(kind.value,): gauges.disabled_addresses.get(kind.value, 0) for kind in ChannelKind},
    )
    if gauges.beat_ticked is not None:
        yield _gauge(metrics.BEAT_TICK, {(): gauges.beat_ticked.timestamp()})


def _of_tally(tally: Tally) -> Iterator[Metric]:
    yield _histogram(metrics.RENDER_SECONDS, tally.renders)
    yield _counter(metrics.RENDER_FAILURES, {(n,): c for n, c in tally.render_failures.items()})
    yield _counter(metrics.DELIVERY_ATTEMPTS, dict(tally.attempts.items()))
    yield _histogram(metrics.DELIVERY_SECONDS, tally.sends)


def _age(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())


def _gauge(what: metrics.Metric, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(what.name, what.help, labels=what.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(what: metrics.Metric, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(what.name, what.help, labels=what.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(what: metrics.Metric, values: Mapping[str, Timings]) -> Metric:
    family = HistogramMetricFamily(what.name, what.help, labels=what.labels)
    for label, timings in values.items():
        family.add_metric((label,), buckets=timings.cumulative, sum_value=timings.total_s)
    return family
