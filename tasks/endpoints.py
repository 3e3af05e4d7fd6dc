"""What follows a disabled address: its waiting deliveries end, and operators are told.

Called by the sweep.  A send that fails only notes that the address is disabled, so
that it never waits for ten thousand rows.  Operators are told of an address once
nothing waits for it, in one transaction with the note that they are: what a killed
sweep left undone, and what an alert of this hour did not count any more, the next
ones do.
"""

from __future__ import annotations

import structlog

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable
from store.endpoints import (
    fail_waiting,
    note_ended,
    note_told,
    unended_endpoints,
    untold_endpoints,
)
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
            unended = unended_endpoints(connection, AT_ONCE)
            left = parts.settings.sweep_batch
            for subscriber_id, channel, reason in unended:
                now = parts.clock()
                count = fail_waiting(
                    connection, subscriber_id, channel, reason=reason, now=now, limit=left
                )
                ended += count
                left -= count
                if left <= 0:
                    break
                note_ended(connection, subscriber_id, channel, now)
        if not unended:
            break
        crash_here(CrashPoint.ENDPOINT_SETTLING)
    if ended:
        log.warning("deliveries_of_disabled_addresses_failed", deliveries=ended)
    _tell_operators(parts)
    return ended


def _tell_operators(parts: Wiring) -> None:
    with parts.ledger.write() as connection:
        untold = untold_endpoints(connection)
        tickets = alert_disabled_endpoints(connection, parts, untold) if untold else None
        if tickets is not None:
            note_told(connection, untold, parts.clock())
    try:
        start_deliveries(tickets or ())
    except BrokerUnavailable as error:
        log.warning("alert_left_to_sweep", error=str(error))
