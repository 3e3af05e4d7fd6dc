"""The parts of the service, each in the process that calls it: listener, worker, beat."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from schemas import crash_points
from schemas.errors import InvalidSettings, LedgerUnavailable
from schemas.settings import Settings
from store.secrets import FITS_NONE

if TYPE_CHECKING:
    from store.ledger import Ledger
    from tasks.wiring import Wiring

log = structlog.get_logger("processes")

POOLS = ("prefork", "threads", "solo")
"""Green threads are not among them: renderers and the ledger's drivers would block them all."""


def run_listener(settings: Settings) -> None:
    """Consume until SIGTERM or SIGINT; the batch in hand is finished and acknowledged."""
    from listener.consumer import Listener
    from listener.meter import Meter
    from listener.serving import served
    from listener.stream import EventStreams
    from tasks import wiring
    from tasks.app import publish_only
    from tasks.chords import dispatch
    from tasks.heart import Heart
    from tasks.logs import configure_logs
    from tasks.queues import queue_depth

    configure_logs(settings)
    crash_points.arm(settings.crash_dir)
    wiring.use(settings)
    publish_only()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parts = wiring.current()
    _ = parts.run_defaults  # an unknown rule pack, language or brand is told now
    streams = EventStreams(
        settings.redis_url,
        settings.streams,
        settings.consumer_group,
        settings.consumer_name or f"{socket.gethostname()}-{os.getpid()}",
        block_ms=settings.block_ms,
    )
    meter = Meter()
    with ExitStack() as running:
        running.callback(parts.close)
        if settings.metrics_port:
            running.enter_context(
                served(meter.registry, settings.metrics_host, settings.metrics_port)
            )
        gc.collect()
        gc.freeze()  # code and settings stay: no collection while decoding need look at them
        depth = partial(queue_depth, "reports")
        heart = Heart("listener", settings)
        Listener(streams, parts, dispatch, depth, stop, heart, meter).run()


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What ``scanherald worker`` was asked for; None leaves Celery's default."""

    queues: tuple[str, ...] = ()
    concurrency: int | None = None
    autoscale: str | None = None
    pool: str = "prefork"
    max_tasks_per_child: int | None = None
    name: str | None = None


def run_worker(settings: Settings, options: WorkerOptions) -> None:
    """Run a Celery worker in this process until it is told to stop."""
    # SIGTERM, which supervisors send, starts the soft shutdown; read when billiard is imported.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    from channels.operator_templates import check_templates
    from renderers.registry import load_ahead
    from tasks import app, wiring
    from tasks.app import QUEUES
    from tasks.logs import configure_logs

    queues = [name for given in options.queues for name in given.split(",")] or QUEUES
    _check_known("--queue", queues, QUEUES)
    _check_known("--pool", [options.pool], POOLS)
    configure_logs(settings)
    crash_points.arm(settings.crash_dir)
    wiring.use(settings)
    _ = wiring.current().run_defaults  # as in the listener: a worker records what it fetches
    check_templates(settings.templates_dir)
    migrate_patiently(wiring.current().ledger)
    if {"reports", "notifications"} & set(queues):  # others may have been given no key
        _look_at_addresses(wiring.current())
    wiring.current().close()
    if "reports" in queues:
        load_ahead(settings.language)  # once, for all processes of the pool
    arguments = [
        "worker",
        f"--loglevel={settings.log_level}",
        f"--queues={','.join(queues)}",
        f"--pool={options.pool}",
        "--without-gossip",  # workers need not know each other: the ledger is what they share
        "--without-mingle",
    ]
    arguments += [
        f"--{name}={value}"
        for name, value in (
            ("concurrency", options.concurrency),
            ("autoscale", options.autoscale),
            ("max-tasks-per-child", options.max_tasks_per_child),
            ("hostname", options.name),
        )
        if value is not None
    ]
    app.worker_main(arguments)


LOOKED_AT = 1000
"""Addresses that a worker tries at its start: enough to notice that a key is lost."""


def _look_at_addresses(parts: Wiring) -> None:
    """Say now, in one line, that a key is lost; reports go on, and what is to be told waits."""
    from store.resealing import count_sealed
    from store.subscribers import note_kinds

    try:
        note_kinds(parts.ledger, parts.box)
        looked_at, closed = count_sealed(parts.ledger, parts.box, LOOKED_AT)
    except LedgerUnavailable as error:
        log.warning("addresses_not_looked_at", error=str(error))
        return
    if closed:
        log.error("addresses_closed", closed=closed, looked_at=looked_at, error=FITS_NONE)


def _check_known(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    """A worker of a queue that nothing is sent to would look healthy and do nothing."""
    for name in given:
        if name not in known:
            raise InvalidSettings(f"{option} {name!r} is not one of: {', '.join(known)}")


def migrate_patiently(ledger: Ledger) -> None:
    """Wait for a ledger that is away, as for a broker; say so once."""

    def say_once(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            log.warning("ledger_unavailable", error=str(state.outcome.exception()))

    Retrying(
        retry=retry_if_exception_type(LedgerUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        before_sleep=say_once,
    )(ledger.migrate)


def run_beat(settings: Settings) -> None:
    """Run Celery beat in this process until it is told to stop.

    A second one, on another machine, is welcome: see ``tasks.ticks``.
    """
    from tasks import app, wiring
    from tasks.app import publish_only

    crash_points.arm(settings.crash_dir)
    wiring.use(settings)
    publish_only()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    pid_file = settings.data_dir / "beat.pid"
    pid_file.unlink(missing_ok=True)  # of a beat that was killed
    app.start(["beat", f"--loglevel={settings.log_level}", f"--pidfile={pid_file}"])
