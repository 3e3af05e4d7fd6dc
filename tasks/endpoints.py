"""What follows a disabled address: its waiting deliveries end, and operators are told.

Called by the sweep.  A send that fails only notes that the address is disabled, so
that it never waits for ten thousand rows.  An address counts as told once nothing
waits for it and the alert is planned, in one transaction: what a killed sweep left
undone, the next one does.
"""

from __future__ import annotations

import structlog

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable
from store.endpoints import fail_waiting, note_told, untold_endpoints
from tasks.alerts import alert_disabled_endpoints
from tasks.notifications import start_deliveries
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.endpoints")

AT_ONCE = 50
"""Disabled addresses that one transaction looks at."""
ROUNDS = 100
"""Transactions of one sweep; the next one goes on."""


def settle_disabled(parts: Wiring) -> int:
    """End what waits for disabled addresses, and alert; return how many deliveries ended.

    Raises LedgerUnavailable.
    """
    ended = 0
    for _ in range(ROUNDS):
        with parts.ledger.write() as connection:
            untold = untold_endpoints(connection, AT_ONCE)
            if not untold:
                break
            left = parts.settings.sweep_batch
            done = []
            for subscriber_id, channel, reason in untold:
                now = parts.clock()
                count = fail_waiting(
                    connection, subscriber_id, channel, reason=reason, now=now, limit=left
                )
                ended += count
                left -= count
                if left <= 0:
                    break
                if note_told(connection, subscriber_id, channel, now):
                    done.append((subscriber_id, channel))
            tickets = alert_disabled_endpoints(connection, parts, done)
        crash_here(CrashPoint.ENDPOINT_SETTLING)
        try:
            start_deliveries(tickets)
        except BrokerUnavailable as error:
            log.warning("alert_left_to_sweep", error=str(error))
    if ended:
        log.warning("deliveries_of_disabled_addresses_failed", deliveries=ended)
    return ended
