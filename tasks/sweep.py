"""The sweep: beat's look, every minute, at what should have happened and did not.

The only code that starts another attempt of a run, or of a delivery that nobody
has in hand.  Bounded per tick; of two sweeps at once each row has one winner.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable
from store.deliveries import claim_due
from store.runs import claim_unfinished
from tasks import wiring
from tasks.alerts import alert_dead_runs
from tasks.app import SWEEP, app
from tasks.chords import dispatch
from tasks.notifications import start_deliveries, started_by
from tasks.queues import queue_depth
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.sweep")

FED = ("reports", "notifications")
"""The queues that a sweep publishes to."""


@app.task(name=SWEEP)
def sweep() -> dict[str, int]:
    """Start what is overdue: ``runs``, ``deliveries``, and ``dead`` runs given up.

    A queue that is deep already is given no more: what waits in it is late, not lost.
    """
    return sweep_once(wiring.current())


def sweep_once(parts: Wiring) -> dict[str, int]:
    """One tick.  Raises LedgerUnavailable; the next tick comes in a minute.

    Killed between a claim and its publishing, the row waits for its new
    deadline and is claimed again.
    """
    now = parts.clock()
    settings = parts.settings
    room = {name: _has_room(name, settings.reports_high_water) for name in FED}
    with parts.ledger.write() as connection:
        found = claim_unfinished(
            connection,
            now,
            next_deadline=now + timedelta(seconds=settings.run_deadline_s),
            max_attempts=settings.run_max_attempts,
            limit=settings.sweep_batch if room["reports"] else 0,
        )
        due = claim_due(
            connection,
            now,
            started_by=started_by(parts),
            limit=settings.sweep_batch if room["notifications"] else 0,
        )
        due += alert_dead_runs(connection, parts, list(found.dead))
    crash_here(CrashPoint.SWEEP_CLAIMED)
    for run_id in found.dead:
        log.error("run_dead", run_id=run_id, attempts=settings.run_max_attempts)
    try:
        dispatch(found.tickets)
        start_deliveries(due)
    except BrokerUnavailable as error:
        log.warning("sweep_cut_short", error=str(error))
    if found.tickets or due or found.dead:
        log.info("swept", runs=len(found.tickets), deliveries=len(due), dead=len(found.dead))
    return {"runs": len(found.tickets), "deliveries": len(due), "dead": len(found.dead)}


def _has_room(queue: str, high_water: int) -> bool:
    """Whether a queue can take more; one that cannot be asked cannot be given anything."""
    try:
        return queue_depth(queue) < high_water
    except BrokerUnavailable as error:
        log.warning("sweep_held_back", queue=queue, error=str(error))
        return False
