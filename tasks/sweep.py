"""The sweep: beat's look, every minute, at what should have happened and did not.

The only code that starts another attempt of a run, or of a delivery that nobody
has in hand.  Bounded per tick; of two sweeps at once each row has one winner.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable, StreamUnavailable
from store.deliveries import claim_due
from store.runs import claim_unfinished
from tasks import wiring
from tasks.alerts import alert_dead_runs
from tasks.app import SWEEP, app
from tasks.chords import dispatch
from tasks.digests import release_due
from tasks.endpoints import settle_disabled
from tasks.newer import bring_back
from tasks.notifications import start_deliveries, started_by
from tasks.pace import ahead_s
from tasks.presence import SWEPT, Presence
from tasks.queues import queue_depth
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.sweep")

ROUNDS = 40
"""Batches of deliveries that one tick starts at most."""


@app.task(name=SWEEP)
def sweep() -> dict[str, int]:
    """Start what is overdue: ``runs``, ``deliveries``, and ``dead`` runs given up.

    A queue that is deep already is given no more: what waits in it is late, not lost.
    """
    parts = wiring.current()
    found = sweep_once(parts)
    _bring_back()
    _note_sweep(parts)
    return found


def _bring_back() -> None:
    """What workers of an older release left for one of ours."""
    try:
        bring_back()
    except BrokerUnavailable as error:
        log.warning("newer_messages_left", error=str(error))


def _note_sweep(parts: Wiring) -> None:
    """Beat, broker, a worker and the ledger worked together just now: health asks for it."""
    presence = Presence(parts.settings)
    try:
        presence.note(SWEPT, "-", 0)
    except StreamUnavailable as error:
        log.warning("sweep_not_noted", error=str(error))
    finally:
        presence.close()


def sweep_once(parts: Wiring) -> dict[str, int]:
    """One tick.  Raises LedgerUnavailable; the next tick comes in a minute.

    Killed between a claim and its publishing, the row waits for its new
    deadline and is claimed again.
    """
    found = {"runs": 0, "deliveries": 0, "dead": 0}
    try:
        _start_runs(parts, found)
        settle_disabled(parts)
        _start_deliveries(parts, found)
    except BrokerUnavailable as error:
        log.warning("sweep_cut_short", error=str(error))
    if any(found.values()):
        log.info("swept", **found)
    return found


def _start_runs(parts: Wiring, found: dict[str, int]) -> None:
    """Dispatch overdue runs again, and tell of those that are given up."""
    now, settings = parts.clock(), parts.settings
    depth = _depth("reports")
    has_room = depth is not None and depth < settings.reports_high_water
    with parts.ledger.write() as connection:
        overdue = claim_unfinished(
            connection,
            now,
            next_deadline=now + timedelta(seconds=settings.run_deadline_s),
            max_attempts=settings.run_max_attempts,
            limit=settings.sweep_batch if has_room else 0,
            spare_waiting_replays=bool(depth),
        )
        alerts = alert_dead_runs(connection, parts, list(overdue.dead))
    found |= {
        "runs": len(overdue.tickets),
        "dead": len(overdue.dead),
        "deliveries": len(alerts),
    }
    crash_here(CrashPoint.SWEEP_CLAIMED)
    for run_id in overdue.dead:
        log.error("run_dead", run_id=run_id, attempts=settings.run_max_attempts)
    dispatch(overdue.tickets)
    start_deliveries(alerts)


def _start_deliveries(parts: Wiring, found: dict[str, int]) -> None:
    """Let go of what was held, and start what is due, until nothing is or the queue is full."""
    settings = parts.settings
    limit = settings.sweep_batch
    ahead = ahead_s(settings)
    for _ in range(ROUNDS):
        depth = _depth("notifications")
        if depth is None or depth >= settings.reports_high_water:
            break
        now = parts.clock()
        with parts.ledger.write() as connection:
            release_due(connection, parts, now, limit)
            due = claim_due(
                connection,
                now,
                started_by=started_by(parts),
                limit=limit,
                ahead=timedelta(seconds=ahead),
            )
        found["deliveries"] += len(due)
        crash_here(CrashPoint.SWEEP_CLAIMED)
        start_deliveries(due)
        if len(due) < limit:
            break


def _depth(queue: str) -> int | None:
    """Messages in a queue.  None: it cannot be asked, and so cannot be given anything."""
    try:
        return queue_depth(queue)
    except BrokerUnavailable as error:
        log.warning("sweep_held_back", queue=queue, error=str(error))
        return None
