"""An attempt's body or fetch: counted before it begins, put off or given up when it cannot end."""

from __future__ import annotations

from datetime import timedelta

import structlog

from schemas.errors import BrokerUnavailable, TransientError
from store import runs
from store.deliveries import DeliveryTicket
from store.earlier_scans import freeze_again
from tasks.alerts import alert_dead_runs
from tasks.notifications import start_deliveries
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.attempts")


def begin(parts: Wiring, run_id: str) -> bool:
    """Count a start before the work.  False: so many never ended that the run is given up.

    A worker killed by its task gets the message back at once; only this count,
    in the ledger, ends that.  Raises LedgerUnavailable.
    """
    with parts.ledger.write() as connection:
        begun = runs.begin_work(connection, run_id)
        freeze_again(connection, run_id)  # for a run without formats: the body is all there is
    limit = parts.settings.render_max_tries
    if begun <= limit:
        return True
    give_up(parts, run_id, f"given up as poison: {limit} starts of its body or fetch never ended")
    return False


def forgive(parts: Wiring, run_id: str) -> None:
    """The start ended, by a passing fault: it was no poison."""
    try:
        with parts.ledger.write() as connection:
            runs.forgive_work(connection, run_id)
    except TransientError as error:
        log.warning("start_not_forgiven", run_id=run_id, error=str(error))


def put_off(parts: Wiring, run_id: str, attempt: int, reason: str) -> None:
    """Leave a run to the sweep's next attempt, later with each one."""
    log.warning("run_postponed", run_id=run_id, attempt=attempt, error=reason)
    delay = min(parts.settings.run_deadline_s, parts.settings.retry_max_s * 2.0 ** (attempt - 1))
    with parts.ledger.write() as connection:
        runs.postpone(connection, run_id, attempt, reason, parts.clock() + timedelta(seconds=delay))


def give_up(parts: Wiring, run_id: str, reason: str) -> None:
    """End a run dead, and alert.  Killed after the commit, the sweep sends the alert."""
    alerts: list[DeliveryTicket] = []
    with parts.ledger.write() as connection:
        if runs.settle_dead(connection, run_id, reason, parts.clock()):
            log.error("run_dead", run_id=run_id, reason=reason)
            alerts = alert_dead_runs(connection, parts, [run_id])
    try:
        start_deliveries(alerts)
    except BrokerUnavailable as error:
        log.warning("deliveries_left_to_sweep", run_id=run_id, error=str(error))
