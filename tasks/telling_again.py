"""A replay that was asked to notify: what was told before is told again, once per replay.

The replay's id is a part of the event key then, so the replay's own repeats wake
nobody.  What an event never told is told under its usual key: a later replay
that is not asked to notify again stays silent about it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import Connection

from schemas.events import EventType
from schemas.notifications import ArtifactLink, Notification
from schemas.runs import Run
from store.deliveries import DeliveryTicket, news_of_event
from tasks.telling import plan
from tasks.wiring import Wiring

MARK = ":replay:"
"""Stands in an event key between the usual key and the replay's id."""


def plan_again(
    connection: Connection,
    parts: Wiring,
    run: Run,
    told: Sequence[Notification],
    known: Collection[str],
    artifacts: tuple[ArtifactLink, ...],
) -> list[DeliveryTicket]:
    """Plan once more what this run derived and others had told, under the replay's keys.

    The news of violations is taken from the ledger, for their standing has moved
    on since: what it said then is said again, with the artifacts of today.
    """
    again = [item for item in told if item.event_key in known]
    again += [
        msgspec.structs.replace(item, artifacts=artifacts)
        for item in violations_told(connection, run.event_pk, told)
    ]
    tickets, _ = plan(
        connection,
        parts,
        [
            msgspec.structs.replace(item, event_key=f"{item.event_key}{MARK}{run.replay_id}")
            for item in again
        ],
        run_id=run.run_id,
        owner=run.user_id,
        replay_id=run.replay_id,
    )
    return tickets


def violations_told(
    connection: Connection, event_pk: int, derived: Sequence[Notification]
) -> list[Notification]:
    """The news of violations that an event brought about, but for what is derived of it anyway."""
    keys = {item.event_key for item in derived}
    return [
        item
        for item in news_of_event(connection, event_pk, EventType.COMPLIANCE_VIOLATION)
        if item.event_key not in keys and MARK not in item.event_key
    ]
