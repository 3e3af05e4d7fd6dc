"""What travels about a replay: what was asked for, how far it is, what it skipped and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from schemas.reports import Format


class ReplaySource(StrEnum):
    """Where the events of a replay come from."""

    ARCHIVE = "archive"
    STREAM = "stream"
    FILES = "files"
    DEAD_LETTERS = "dead-letters"


class ReplayState(StrEnum):
    """``running → done``; all others can be resumed, as can one whose driver was killed."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Only(StrEnum):
    """What a replay does with an event."""

    REPORTS = "reports"
    NOTIFY = "notify"


class Skip(StrEnum):
    """Why a selected event gets no run."""

    ALREADY_THERE = "already there"
    NO_REPORTS = "its type has no reports"
    IN_FLIGHT = "a run of it is in flight"
    SUPERSEDED = "its scan came again in a later event"
    DATA_GONE = "its data has been deleted"
    NOT_FETCHED = "its data was never fetched; replay its reports first"
    NO_RUN = "no run ever worked on it"
    SELECTED_TWICE = "selected twice"
    LISTENERS = "not taken in yet: it is the listener's"
    DEAD_LETTER = "a dead letter; see scanherald dead-letters replay"
    UNKNOWN = "not in the ledger, which is where notify reads"
    SUSPECT = "looking at it killed the listener; name its number to try again"


class Selection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which events.  What is None or empty selects nothing away."""

    since: datetime | None = None
    """Taken in from then on, the moment included."""
    until: datetime | None = None
    """Taken in up to then, included."""
    first_entry: str | None = None
    last_entry: str | None = None
    streams: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Absolute paths of files and folders, in their order."""
    numbers: tuple[int, ...] = ()
    """Of dead letters; empty: all that are no suspects."""
    last_event: int | None = None
    """The newest event when the replay began: later ones are live and need none."""
    domain: str | None = None
    """A glob."""
    scan_id: str | None = None
    type: str | None = None
    status: str | None = None
    """As the scan itself says it."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """All that a replay was asked for."""

    source: ReplaySource
    selection: Selection
    renders: bool
    tells: bool
    formats: tuple[Format, ...] | None = None
    """None: those that each event has, or a new one would get."""
    force: bool = False
    rate: float = 0.0
    """Runs a second; 0: as fast as the cap allows."""
    in_flight: int = 20
    """Runs of it that may be unsettled at once."""


@dataclass(slots=True)
class Counts:
    """What became of the selected events: ``selected = started + skipped + failed``.

    ``new`` of those that started were not in the ledger before.
    """

    selected: int = 0
    new: int = 0
    started: int = 0
    failed: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: Skip) -> None:
        """Count one."""
        self.skipped[reason.value] = self.skipped.get(reason.value, 0) + 1

    def add(self, more: Counts) -> None:
        """Add up."""
        self.selected += more.selected
        self.new += more.new
        self.started += more.started
        self.failed += more.failed
        for reason, count in more.skipped.items():
            self.skipped[reason] = self.skipped.get(reason, 0) + count


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that could not be used: where it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as the ledger has it."""

    replay_id: str
    request: ReplayRequest
    state: ReplayState
    reason: str | None
    driver: str
    step: int
    checkpoint: dict[str, Any] | None
    counts: Counts
    failures: tuple[Failure, ...]
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
