"""Scans that young runs name among those they may be compared with: their bytes are in use.

Read once for a whole cleanup and then kept up.  As a condition of each row it
would read all runs of a domain for every old scan of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from store.figures import recorded_since
from store.tables import events, runs

OVERLAP = timedelta(minutes=1)
"""Runs are looked for anew from so long before the last look: clocks differ, commits take time."""


class NamedScans:
    """The events, of those recorded before ``young``, whose bytes a younger event's run needs.

    What is not older than every young event, by number, counts as named: a clock
    that was set back must not cost anybody bytes.
    """

    def __init__(self, connection: Connection, young: datetime, now: datetime) -> None:
        self.young = young
        self._named: set[int] = set()
        self._first_young: int | None = connection.execute(
            select(func.min(events.c.event_pk)).where(recorded_since(young))
        ).scalar_one()
        self._looked_at = now
        if self._first_young is not None:
            self._read(connection, runs.c.event_pk >= self._first_young)

    def keep_up(self, connection: Connection, now: datetime) -> None:
        """Add what runs name that were recorded since the last look."""
        since, self._looked_at = self._looked_at - OVERLAP, now
        self._read(connection, runs.c.created_at >= since)

    def __contains__(self, event_pk: int) -> bool:
        return event_pk in self._named or (
            self._first_young is not None and event_pk >= self._first_young
        )

    def _read(self, connection: Connection, which: ColumnElement[bool]) -> None:
        rows = connection.execution_options(yield_per=1000).execute(
            select(runs.c.event_pk, runs.c.inputs).where(which)
        )
        for event_pk, inputs in rows:
            if self._first_young is None or event_pk < self._first_young:
                continue  # a replay's run of an old event
            self._named.update(pk for pk in _names(inputs) if pk < self._first_young)


def _names(inputs: dict[str, Any]) -> list[int]:
    """The numbers of events in frozen inputs (``schemas.runs.FrozenInputs``)."""
    named = [inputs.get("previous_event_pk"), *(e["event_pk"] for e in inputs.get("earlier", ()))]
    return [event_pk for event_pk in named if event_pk is not None]
