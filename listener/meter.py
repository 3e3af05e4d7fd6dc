"""What a listener's own loop did, counted in its memory and served if a port is set."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from schemas import metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, unused
OUTCOMES = ("new", "repeat", "dead")


class Meter:
    """The metrics of one listener."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.read = self._counter(metrics.ENTRIES_READ)
        self._recorded = self._counter(metrics.ENTRIES_RECORDED)
        self.batch_seconds = self._histogram(metrics.BATCH_SECONDS)
        self.dispatch_seconds = self._histogram(metrics.DISPATCH_SECONDS)
        self.backpressure = self._gauge(metrics.BACKPRESSURE)
        self.last_turn = self._gauge(metrics.LAST_TURN)
        for outcome in OUTCOMES:
            self._recorded.labels(outcome)  # from zero on, so that its first one is an increase

    def recorded(self, *, new: int = 0, repeats: int = 0, dead: int = 0) -> None:
        """So many entries are in the ledger."""
        for outcome, count in zip(OUTCOMES, (new, repeats, dead), strict=True):
            self._recorded.labels(outcome).inc(count)

    def _counter(self, what: metrics.Metric) -> Counter:
        return Counter(what.name, what.help, what.labels, registry=self.registry)

    def _gauge(self, what: metrics.Metric) -> Gauge:
        return Gauge(what.name, what.help, what.labels, registry=self.registry)

    def _histogram(self, what: metrics.Metric) -> Histogram:
        return Histogram(
            what.name, what.help, what.labels, buckets=what.buckets, registry=self.registry
        )
