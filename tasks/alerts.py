"""Alerts to operators: what was set aside and needs a person.

An alert is a notification like any other, in the ledger, with retries; it goes
to subscribers that name ``operator.alert`` among their events.  Its event key
holds the hour and the size of that hour's trouble, so that a thousand failures
of one kind tell somebody at the first, the tenth and so on, not each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection

from schemas.errors import PermanentError
from schemas.events import EventType
from schemas.notifications import ChannelKind, Fact, Notification
from schemas.reports import Severity
from schemas.runs import DeadEntry
from store.deliveries import DeliveryTicket, is_known
from store.events import count_dead_letters_since
from store.runs import count_dead_since
from store.subscribers import match_subscribers
from tasks.derive import MAX_TEXT_BYTES, whole
from tasks.telling import plan
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.alerts")

NAMED = 10
"""How many of those concerned an alert names."""


def alert_dead_runs(
    connection: Connection, parts: Wiring, dead: Sequence[str]
) -> list[DeliveryTicket]:
    """Runs were given up: their scans have no report until somebody acts."""
    if not dead:
        return []
    total = count_dead_since(connection, _hour(parts.clock()))
    return _alert(
        connection,
        parts,
        kind="runs_dead",
        concerned=dead,
        total=total,
        title=f"Runs given up: {total} in this hour",
        summary="Runs ended dead after their last attempt. See `scanherald runs --state dead`; "
        "after a fix, `scanherald runs retry`.",
    )


def alert_dead_letters(
    connection: Connection, parts: Wiring, dead: Sequence[DeadEntry]
) -> list[DeliveryTicket]:
    """Entries were set aside: trimmed in Redis before they were read, or against the contract.

    To be called when they are recorded, in the same transaction.
    """
    if not dead:
        return []
    total = count_dead_letters_since(connection, _hour(parts.clock()))
    trimmed = [letter.entry.entry_id for letter in dead if not letter.entry.fields]
    refused = [letter.entry.entry_id for letter in dead if letter.entry.fields]
    return _alert(
        connection,
        parts,
        kind="entries_trimmed",
        concerned=trimmed,
        total=total,
        title=f"Entries trimmed before they were read; {total} dead letters in this hour",
        summary="Somebody trimmed or deleted entries that were pending; their content is gone. "
        "Publish them again, and leave trimming to the listener. See `scanherald dead-letters`.",
    ) + _alert(
        connection,
        parts,
        kind="entries_refused",
        concerned=refused,
        total=total,
        title=f"Entries set aside: {total} dead letters in this hour",
        summary="They break the event contract, or broke the listener. "
        "`scanherald dead-letters` says why, one by one.",
    )


def alert_disabled_endpoints(
    connection: Connection, parts: Wiring, disabled: Sequence[tuple[str, ChannelKind]]
) -> list[DeliveryTicket] | None:
    """Addresses of subscribers are not used any more, until somebody mends them.

    None where as many were told of in this hour already: then nobody is told of these,
    and they are for a later alert.  An address is disabled once until it is enabled
    again, and is sent no alert: so an alert's own address that fails brings one more
    alert, for others, and no third.
    """
    total = len(disabled)
    if is_known(connection, _event_key("endpoints_disabled", total, parts.clock())):
        return None
    return _alert(
        connection,
        parts,
        kind="endpoints_disabled",
        concerned=[f"{subscriber_id} ({channel})" for subscriber_id, channel in disabled],
        total=total,
        title=f"Addresses disabled since the last alert: {total}",
        summary="Subscribers' addresses are gone, or have failed for days; nothing is sent there "
        "any more. `scanherald subscribers list` says why; after a fix, `scanherald deliveries "
        "enable`, then `scanherald deliveries retry --failed`.",
        in_this_hour=False,
    )


def _alert(
    connection: Connection,
    parts: Wiring,
    *,
    kind: str,
    concerned: Sequence[str],
    total: int,
    title: str,
    summary: str,
    in_this_hour: bool = True,
) -> list[DeliveryTicket]:
    """Plan an alert beside the work that it tells of, which it must never undo.

    In a savepoint: an address that fits no key would otherwise roll back the
    claim, the record or the burial, again and again.
    """
    if not concerned:
        return []
    now = parts.clock()
    first = list(concerned[:NAMED])
    log.error("operator_alert", kind=kind, count=len(concerned), total=total, concerned=first)
    alert = Notification(
        event_key=_event_key(kind, total, now),
        type=EventType.OPERATOR_ALERT,
        occurred_at=now,
        domain=None,
        scan_id=None,
        severity=Severity.HIGH,
        title=title,
        summary=summary,
        variant=f"{EventType.OPERATOR_ALERT}.{kind}",
        values={"total": total},
        facts=(
            *([Fact(label="in_this_hour", value=str(total))] if in_this_hour else []),
            Fact(label="such_as", value=whole(", ".join(first), MAX_TEXT_BYTES)),
        ),
        data={"kind": kind, "total": total, "such_as": first},
    )
    try:
        with connection.begin_nested():
            if next(match_subscribers(connection, [alert], None, parts.box), None) is None:
                return []  # and the key stays free for whoever subscribes in this hour
            tickets, _ = plan(connection, parts, [alert], run_id=None, owner=None)
            return tickets
    except PermanentError as error:
        log.error("operator_alert_untold", kind=kind, error=str(error))
        return []


def _event_key(kind: str, total: int, now: datetime) -> str:
    return f"{EventType.OPERATOR_ALERT}:{kind}:{_hour(now):%Y-%m-%dT%H}:{len(str(total))}"


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
