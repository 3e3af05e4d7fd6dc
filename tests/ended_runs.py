"""A run's end for tests that need nothing of what the body makes of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from schemas.runs import Run
from store.runs import note_outcome, settle_done


def end_run(
    connection: Connection, run: Run, now: datetime, *, score: int | None, summary: str
) -> bool:
    """Settle a run and say so of its event; False where it was settled before."""
    settled = settle_done(connection, run, now, score=score)
    if settled:
        note_outcome(connection, run, summary)
    return settled
