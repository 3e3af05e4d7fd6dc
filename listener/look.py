"""One look at everything the service depends on, for the exporter and ``scanherald top``.

Each part is asked in a thread of its own and has the same time to answer: one
that is down or hangs is said to be, and the others are there all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import text

from schemas.errors import NotFound, ScanheraldError
from store.gauges import LedgerGauges, read_gauges
from tasks.app import QUEUES
from tasks.lag import StreamLag, read_lag
from tasks.queues import queue_depth
from tasks.wiring import Wiring
from tasks.workers import count_workers

log = structlog.get_logger("listener.look")

PATIENCE_S = 5.0
"""How long a part may take: well below Prometheus's own ten seconds for a scrape."""

PARTS = ("redis", "broker", "ledger", "artifacts")

ABSENT_KEY = "no-such-report"
"""Asked of the artifact store, whose "no" is the answer of one that works."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a part said.  ``latency_s`` and ``value`` are None where ``error`` is not."""

    value: Any = None
    latency_s: float | None = None
    error: str | None = None

    @property
    def is_up(self) -> bool:
        """Whether it answered."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class BrokerGauges:
    """By queue: messages that wait, and workers that serve it."""

    waiting: dict[str, int]
    workers: dict[str, int]


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.  Figures are None where their part is down."""

    at: datetime
    parts: Mapping[str, Answer]
    """By PARTS."""
    streams: list[StreamLag] | None
    broker: BrokerGauges | None
    ledger: LedgerGauges | None


@dataclass
class Watcher:
    """Looks with the parts of one process.

    ``ask_ledger`` is asked in the ledger's own time and transaction, for whatever
    its user wants to know beside the gauges.
    """

    parts: Wiring
    ask_ledger: Callable[[Any, datetime], None] = lambda _connection, _now: None
    patience_s: float = PATIENCE_S
    _under_way: dict[str, threading.Thread] = field(default_factory=dict)

    def look(self) -> Look:
        """Ask every part at once.  Takes at most ``patience_s``, and never raises."""
        now = self.parts.clock()
        answers = self._ask(
            {
                "redis": self._ask_redis,
                "broker": self._ask_broker,
                "ledger": self._ask_ledger,
                "artifacts": self._ask_artifacts,
            }
        )
        return Look(
            at=now,
            parts={name: answers[name] for name in PARTS},
            streams=answers["redis"].value,
            broker=answers["broker"].value,
            ledger=answers["ledger"].value,
        )

    def _ask(self, questions: Mapping[str, Callable[[], Answer]]) -> dict[str, Answer]:
        give_up = time.monotonic() + self.patience_s
        answers: dict[str, Answer] = {}
        for name, question in questions.items():
            before = self._under_way.get(name)
            if before is not None and before.is_alive():
                continue  # it hangs since an earlier look: one thread is enough
            thread = threading.Thread(
                target=_keep_answer, args=(answers, name, question), name=f"ask-{name}", daemon=True
            )
            self._under_way[name] = thread
            thread.start()
        for name in questions:
            self._under_way[name].join(max(0.0, give_up - time.monotonic()))
        silent = Answer(error=f"no answer within {self.patience_s:g} s")
        return {name: answers.get(name, silent) for name in questions}

    def _ask_redis(self) -> Answer:
        settings = self.parts.settings
        began = time.monotonic()
        lag = read_lag(
            settings.redis_url, settings.streams, settings.consumer_group, self.parts.clock()
        )
        return Answer(lag, time.monotonic() - began)

    def _ask_broker(self) -> Answer:
        began = time.monotonic()
        first = queue_depth(QUEUES[0])
        latency_s = time.monotonic() - began
        depths = {QUEUES[0]: first} | {name: queue_depth(name) for name in QUEUES[1:]}
        return Answer(BrokerGauges(depths, count_workers()), latency_s)

    def _ask_ledger(self) -> Answer:
        began = time.monotonic()
        with self.parts.ledger.read() as connection:
            connection.execute(text("SELECT 1"))
            latency_s = time.monotonic() - began
            gauges = read_gauges(connection, self.parts.clock())
            self.ask_ledger(connection, self.parts.clock())
        return Answer(gauges, latency_s)

    def _ask_artifacts(self) -> Answer:
        began = time.monotonic()
        with suppress(NotFound):
            self.parts.artifacts.get(ABSENT_KEY)
        return Answer(None, time.monotonic() - began)


def _keep_answer(answers: dict[str, Answer], name: str, question: Callable[[], Answer]) -> None:
    try:
        answers[name] = question()
    except ScanheraldError as error:
        answers[name] = Answer(error=str(error))
    except Exception as error:  # a bug of ours must not hide the other parts
        log.exception("look_crashed", part=name)
        answers[name] = Answer(error=f"internal error: {type(error).__name__}")
