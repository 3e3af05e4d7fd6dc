"""What travels between the listener, the ledger and the tasks about a run.

A run is the work that one event asked for.  Task messages carry a run's id,
its attempt and formats, never a scan: see ``RunTicket``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from schemas.events import Event, EventType
from schemas.reports import Format, HistoryPoint


class RunState(StrEnum):
    """``recorded → dispatched → done``; or ``dead``, or ``cancelled`` by hand, with a reason."""

    RECORDED = "recorded"
    DISPATCHED = "dispatched"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def is_settled(self) -> bool:
        """Whether nothing works on it any more."""
        return self not in (RunState.RECORDED, RunState.DISPATCHED)


class DeliveryState(StrEnum):
    """``pending → sending → sent``, back to pending for a retry, or settled otherwise."""

    PENDING = "pending"
    HELD = "held"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    SUPPRESSED = "suppressed"


class EarlierEvent(msgspec.Struct, frozen=True):
    """An earlier scan of the domain as the event that had brought it last by then.

    The same scan id may come again with other bytes.
    """

    scan_id: str
    event_pk: int
    finished_at: datetime


class FrozenInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything besides the scan that its report is a function of.

    Fixed when it was recorded; the earlier scans once more when its first format is begun.
    """

    language: str
    rule_pack: str
    rule_pack_sha256: str | None = None
    """Digest of the pack's file: a pack that is edited in place judges nothing that it judged
    before.  None for runs recorded before packs were frozen by content."""
    presentation: str | None = None
    """Digest of the look it was recorded with; None for the plain one."""
    previous_scan_id: str | None = None
    previous_event_pk: int | None = None
    """Of the scan right before it, be it trusted or not."""
    earlier: tuple[EarlierEvent, ...] = ()
    """Oldest first: the last scan that had a score by then, and the latest since.  Whichever of
    them can be trusted is what it is compared with.  Empty for a first scan, and for runs recorded
    before these were kept."""
    history: tuple[HistoryPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One raw stream record.  ``fields`` is empty where the stream was trimmed under it."""

    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]

    @property
    def weight(self) -> int:
        """Bytes of its fields."""
        return sum(len(name) + len(value) for name, value in self.fields.items())


@dataclass(frozen=True, slots=True)
class DecodedEntry:
    """An entry and the event in it."""

    entry: Entry
    event: Event


@dataclass(frozen=True, slots=True)
class DeadEntry:
    """An entry that breaks the contract, with a reason a person can act on."""

    entry: Entry
    reason: str


@dataclass(frozen=True, slots=True)
class RunTicket:
    """All a dispatcher needs to start one attempt of one run.

    ``needs_data`` sends it by the fetch of its dataref; without formats it takes
    the short way to the notifications.
    """

    run_id: str
    attempt: int
    formats: tuple[Format, ...]
    needs_data: bool
    is_replay: bool = False
    """Its messages wait behind those of live scans."""
    data_bytes: int = 0
    """Size of the scan, where it is known: a small one's formats are made by one task."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run with the event it serves, as the tasks read it.  ``data`` are the event's bytes."""

    run_id: str
    attempt: int
    state: RunState
    formats: tuple[Format, ...]
    inputs: FrozenInputs
    scan_id: str | None
    event_pk: int
    event_type: EventType
    source: str
    event_id: str
    subject: str | None
    user_id: str | None
    occurred_at: datetime
    dataref: str | None
    traceparent: str | None
    data: bytes
    data_sha256: str
    superseded: bool
    """The same scan id came again in a later event: that one's run makes the reports."""
    data_deleted: bool = False
    """The event had bytes, and cleanup deleted them."""
    replay_id: str | None = None
    """Whose run it is; None for a live one."""
    tells: bool = True
    """Whether it tells anybody.  A replay does when it is asked to."""
