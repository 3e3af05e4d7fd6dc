"""Beat's scheduler: each tick is claimed in the ledger, so two beats do no double work.

Two beats may run for as long as one likes, each ready to go on alone when the
other ends, or when only one of them reaches the broker.  Whoever is first at a
tick starts the chore; the other one takes over its time, and is there one
interval later.  What was due while no beat ran is started once by the first
that comes back.

RedBeat, the usual answer, keeps its lock and its schedule in Redis: a second
beat stands idle until the lock's time is out, and a Redis that lost its data
forgets both.  The ledger is there with any broker and outlives Redis.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import schedstate
from sqlalchemy.exc import DBAPIError

from schemas.errors import LedgerUnavailable
from store.chores import claim_tick, last_ticks
from tasks import wiring
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.ticks")


class LedgerScheduler(Scheduler):
    """Celery's scheduler with its memory in the ledger.

    While the ledger is away it ticks by its own memory: a lock must not stop the
    sweep.  Two beats may then start a chore twice, and each chore stands that:
    its rows have one winner each.
    """

    _parts: Wiring | None = None
    _was_away = False

    def setup_schedule(self) -> None:
        """Take up each entry where any beat has left it."""
        super().setup_schedule()
        parts = self._parts = wiring.current()
        try:
            parts.ledger.migrate()
            with parts.ledger.write() as connection:
                ticked = last_ticks(connection, self.schedule, parts.clock())
        except LedgerUnavailable as error:
            self._note_away(error)
            return
        for name, moment in ticked.items():
            self.schedule[name].last_run_at = moment

    def is_due(self, entry: ScheduleEntry) -> Any:
        """Whether to start an entry now, and when to look again, s."""
        by_memory = entry.is_due()
        if not by_memory[0] or self._parts is None:
            return by_memory
        try:
            with self._parts.ledger.write() as connection:
                taken = claim_tick(
                    connection, str(entry.name), self._parts.clock(), _is_due_again(entry)
                )
        except (LedgerUnavailable, DBAPIError) as error:
            self._note_away(error)
            return by_memory
        self._was_away = False
        if taken is None:
            return by_memory
        log.debug("tick_taken_by_another_beat", entry=entry.name, at=taken.isoformat())
        entry.last_run_at = taken
        due, wait = entry.is_due()
        return schedstate(False, 0 if due else wait)

    @property
    def info(self) -> str:
        """A line of beat's banner."""
        return "    . ticks -> the ledger"

    def _note_away(self, error: Exception) -> None:
        if not self._was_away:
            log.warning("ticks_unclaimed", error=str(error).split("\n", 1)[0])
        self._was_away = True


def _is_due_again(entry: ScheduleEntry) -> Any:
    schedule: Any = entry.schedule

    def is_due(last: datetime) -> bool:
        return bool(schedule.is_due(last)[0])

    return is_due
