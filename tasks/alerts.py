"""Alerts to operators: what was set aside and needs a person.

An alert is a notification like any other, in the ledger, with retries; it goes
to subscribers that name ``operator.alert`` among their events.  Its event key
holds the hour, so that a thousand failures of one kind wake somebody once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog
from sqlalchemy import Connection

from schemas.events import EventType
from schemas.notifications import Fact, Notification
from schemas.reports import Severity
from schemas.runs import DeadEntry
from store.deliveries import DeliveryTicket
from tasks.derive import MAX_TEXT_BYTES, whole
from tasks.telling import plan
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.alerts")

NAMED = 10
"""How many of those concerned an alert names."""


def alert_dead_runs(connection: Connection, parts: Wiring, dead: list[str]) -> list[DeliveryTicket]:
    """Runs were given up: their scans have no report until somebody acts."""
    return _alert(
        connection,
        parts,
        kind="runs_dead",
        concerned=dead,
        title=f"{len(dead)} runs given up",
        summary="Runs ended dead after their last attempt. See `scanherald runs --state dead`; "
        "after a fix, `scanherald runs retry`.",
    )


def alert_dead_letters(
    connection: Connection, parts: Wiring, dead: Sequence[DeadEntry]
) -> list[DeliveryTicket]:
    """Entries were set aside: trimmed in Redis before they were read, or against the contract."""
    trimmed = [letter.entry.entry_id for letter in dead if not letter.entry.fields]
    refused = [letter.entry.entry_id for letter in dead if letter.entry.fields]
    return _alert(
        connection,
        parts,
        kind="entries_trimmed",
        concerned=trimmed,
        title=f"{len(trimmed)} entries were trimmed before they were read",
        summary="Somebody trimmed or deleted entries that were pending; their content is gone. "
        "Publish them again, and leave trimming to the listener. See `scanherald dead-letters`.",
    ) + _alert(
        connection,
        parts,
        kind="entries_refused",
        concerned=refused,
        title=f"{len(refused)} entries were set aside as dead letters",
        summary="They break the event contract, or broke the listener. "
        "`scanherald dead-letters` says why, one by one.",
    )


def _alert(
    connection: Connection,
    parts: Wiring,
    *,
    kind: str,
    concerned: list[str],
    title: str,
    summary: str,
) -> list[DeliveryTicket]:
    if not concerned:
        return []
    now = parts.clock()
    log.error("operator_alert", kind=kind, count=len(concerned), concerned=concerned[:NAMED])
    alert = Notification(
        event_key=f"{EventType.OPERATOR_ALERT}:{kind}:{_hour(now)}",
        type=EventType.OPERATOR_ALERT,
        occurred_at=now,
        domain=None,
        scan_id=None,
        severity=Severity.HIGH,
        title=title,
        summary=f"{summary} Further ones of this hour are counted, not told.",
        facts=(
            Fact(label="Count", value=str(len(concerned))),
            Fact(label="First", value=whole(", ".join(concerned[:NAMED]), MAX_TEXT_BYTES)),
        ),
        data={"kind": kind, "count": len(concerned), "first": concerned[:NAMED]},
    )
    tickets, _ = plan(connection, parts, [alert], run_id=None, owner=None)
    return tickets


def _hour(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H")
