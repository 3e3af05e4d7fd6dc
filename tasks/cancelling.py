"""Cancelling runs: in the ledger first, which decides; then their tasks are revoked.

A revoked task is one that workers need not start.  They remember it in memory
only, so it is a saving and no promise: a task that starts after all finds its
run settled and does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from schemas.errors import BrokerUnavailable
from store import replays
from store.cancelling import cancel_news_of_replay, cancel_run, unsettled_of_replay
from tasks.app import app
from tasks.chords import task_ids
from tasks.publishing import broker_faults
from tasks.wiring import Wiring

BATCH = 100
"""Runs of one transaction, and of one message to the workers."""


@dataclass
class Cancelling:
    """What became of the runs that were to be cancelled."""

    cancelled: list[str] = field(default_factory=list)
    ended_before: list[str] = field(default_factory=list)
    """Done, or dead: of these only deliveries could be suppressed."""
    nothing_left: list[str] = field(default_factory=list)
    suppressed: int = 0
    in_hand: int = 0
    not_revoked: str | None = None
    """Why workers could not be told, where they could not."""

    @property
    def known(self) -> set[str]:
        """The runs that there are."""
        return {*self.cancelled, *self.ended_before}

    def figures(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "cancelled": self.cancelled,
            "ended_before": self.ended_before,
            "deliveries_suppressed": self.suppressed,
            "deliveries_in_hand": self.in_hand,
            "tasks_not_revoked": self.not_revoked,
        }


def cancel(parts: Wiring, run_ids: Sequence[str], reason: str) -> Cancelling:
    """Cancel runs, batch by batch.  Raises LedgerUnavailable; what was committed stays so.

    Killed between the ledger and the revocation, the tasks find their runs settled.
    """
    outcome = Cancelling()
    waiting = iter(run_ids)
    while batch := list(islice(waiting, BATCH)):
        tasks: list[str] = []
        with parts.ledger.write() as connection:
            done = [cancel_run(connection, run_id, reason, parts.clock()) for run_id in batch]
        for found in done:
            if found is None:
                continue
            outcome.suppressed += found.suppressed
            outcome.in_hand += found.in_hand
            if found.attempt is None:
                outcome.ended_before.append(found.run_id)
                if not found.did_something:
                    outcome.nothing_left.append(found.run_id)
                continue
            outcome.cancelled.append(found.run_id)
            tasks += task_ids(found.run_id, found.attempt, found.formats)
        _revoke(outcome, tasks)
    return outcome


def cancel_replay(parts: Wiring, replay_id: str, reason: str) -> Cancelling:
    """End a replay, then its runs that are not settled, then what it tells and is unsent.

    In this order, so that its driver adds none behind our back.  Killed in between,
    the rest is cancelled by asking again.  Raises NotFound, LedgerUnavailable.
    """
    with parts.ledger.write() as connection:
        replays.cancel_replay(connection, replay_id, reason, parts.clock())
    with parts.ledger.read() as connection:
        waiting = unsettled_of_replay(connection, replay_id)
    outcome = cancel(parts, waiting, reason)
    with parts.ledger.write() as connection:
        suppressed, in_hand = cancel_news_of_replay(connection, replay_id, reason, parts.clock())
    outcome.suppressed += suppressed
    outcome.in_hand += in_hand
    return outcome


def _revoke(outcome: Cancelling, tasks: Sequence[str]) -> None:
    if not tasks:
        return
    try:
        with broker_faults():
            app.control.revoke(tasks)
    except BrokerUnavailable as error:
        outcome.not_revoked = str(error)
