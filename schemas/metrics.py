"""Every metric, explained: what the exporter and the listeners publish, and docs/metrics.md lists.

Names follow Prometheus: base units (seconds, entries), ``_total`` for counters.
Labels are few and bounded: no id, domain, subscriber or address is ever one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MetricKind(StrEnum):
    """Prometheus's own kinds."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.  ``buckets`` are a histogram's upper bounds in seconds."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _gauge(name: str, explained: str, *labels: str) -> Metric:
    return Metric(f"scanherald_{name}", MetricKind.GAUGE, explained, labels)


def _counter(name: str, explained: str, *labels: str) -> Metric:
    return Metric(f"scanherald_{name}", MetricKind.COUNTER, explained, labels)


def _histogram(name: str, explained: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(f"scanherald_{name}", MetricKind.HISTOGRAM, explained, labels, buckets)


# The exporter: one look at Redis, broker, ledger and artifacts per scrape

BUILD = _gauge("build_info", "1; the release of the exporter is its label.", "version")
UP = _gauge(
    "up", "1 if the part (redis, broker, ledger, artifacts) answered this look, else 0.", "part"
)
LATENCY = _gauge(
    "latency_seconds",
    "How long the part took to answer one small question, connecting included where it had to.",
    "part",
)
STREAM_ENTRIES = _gauge(
    "stream_entries", "Entries kept in the stream, finished ones too.", "stream"
)
STREAM_UNREAD = _gauge(
    "stream_unread_entries",
    "Lag: entries that no consumer of our group was given yet; absent where the server cannot "
    "tell, as after an XDEL.",
    "stream",
)
STREAM_PENDING = _gauge(
    "stream_pending_entries", "Entries given to a consumer and not yet acknowledged.", "stream"
)
STREAM_OLDEST = _gauge(
    "stream_oldest_entry_age_seconds",
    "Age of the oldest entry that is unread or pending; 0 while there is none.",
    "stream",
)
STREAM_CONSUMERS = _gauge(
    "stream_consumers",
    "Consumers of our group, ones that are gone but not yet removed too.",
    "stream",
)
QUEUE_MESSAGES = _gauge(
    "queue_messages", "Task messages waiting in the queue; those in a worker's hand not.", "queue"
)
WORKERS = _gauge("workers", "Workers that answered within a second and serve the queue.", "queue")
RUNS = _gauge(
    "runs",
    "Runs in the ledger by state (recorded, dispatched, done, dead, cancelled); done and cancelled "
    "are counted each minute.",
    "state",
)
OLDEST_RUN = _gauge(
    "oldest_unfinished_run_age_seconds",
    "Since when the oldest unfinished run is recorded, a replay's not; 0 while there is none.",
)
DEAD_LETTERS = _gauge("dead_letters", "Entries set aside and kept in the ledger.")
WAITING_DELIVERIES = _gauge(
    "waiting_deliveries",
    "Deliveries that are not settled, by channel and state (pending, held, sending).",
    "channel",
    "state",
)
OLDEST_DELIVERY = _gauge(
    "oldest_due_delivery_age_seconds",
    "Since when the delivery that waits longest has been due; 0 while none is due.",
)
SETTLED_DELIVERIES = _gauge(
    "settled_deliveries",
    "Deliveries in the ledger by how they ended (sent, failed, suppressed); counted once a minute.",
    "state",
)
DISABLED_ADDRESSES = _gauge(
    "disabled_addresses", "Subscribers' addresses that are not used any more.", "channel"
)
BEAT_TICK = _gauge(
    "beat_last_tick_timestamp_seconds",
    "When monitor_celery_health, which beat starts every five minutes, ran last; absent before "
    "the first time.",
)
RENDER_SECONDS = _histogram(
    "render_seconds",
    "Time to render one report, by format; since this exporter's start, from the ledger.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 270.0),
    "format",
)
RENDER_FAILURES = _counter(
    "render_failures_total",
    "Formats that could not be rendered; since this exporter's start, from the ledger.",
    "format",
)
DELIVERY_ATTEMPTS = _counter(
    "delivery_attempts_total",
    "Tries of deliveries by channel and outcome (sent, retry, failed); since this exporter's "
    "start, from the ledger.",
    "channel",
    "outcome",
)
DELIVERY_SECONDS = _histogram(
    "delivery_seconds",
    "How long one try of a delivery took, whatever its outcome; since this exporter's start, "
    "from the ledger.",
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0),
    "channel",
)

EXPORTED = (
    BUILD,
    UP,
    LATENCY,
    STREAM_ENTRIES,
    STREAM_UNREAD,
    STREAM_PENDING,
    STREAM_OLDEST,
    STREAM_CONSUMERS,
    QUEUE_MESSAGES,
    WORKERS,
    RUNS,
    OLDEST_RUN,
    DEAD_LETTERS,
    WAITING_DELIVERIES,
    OLDEST_DELIVERY,
    SETTLED_DELIVERIES,
    DISABLED_ADDRESSES,
    BEAT_TICK,
    RENDER_SECONDS,
    RENDER_FAILURES,
    DELIVERY_ATTEMPTS,
    DELIVERY_SECONDS,
)
"""What ``scanherald metrics`` publishes."""

# A listener: what its own loop did

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)

ENTRIES_READ = _counter(
    "listener_read_entries_total", "Entries taken in hand, ones that came back too."
)
ENTRIES_RECORDED = _counter(
    "listener_recorded_entries_total",
    "Entries in the ledger by what they were: new, repeat of a known event, or dead.",
    "outcome",
)
BATCH_SECONDS = _histogram(
    "listener_batch_seconds", "Time to decode and RECORD one batch, its commit included.", _QUICK
)
DISPATCH_SECONDS = _histogram(
    "listener_dispatch_seconds", "Time to publish the tasks of one batch.", _QUICK
)
BACKPRESSURE = _gauge(
    "listener_backpressure_closed", "1 while reading waits for workers to catch up, else 0."
)
LAST_TURN = _gauge(
    "listener_last_turn_timestamp_seconds",
    "When the loop last turned; stands still while it hangs, or waits for Redis or the ledger.",
)

LISTENER = (
    ENTRIES_READ,
    ENTRIES_RECORDED,
    BATCH_SECONDS,
    DISPATCH_SECONDS,
    BACKPRESSURE,
    LAST_TURN,
)
"""What a listener publishes with SCANHERALD_METRICS_PORT."""
