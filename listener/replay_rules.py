"""What a replay does with an event: skip it, with a reason, or give it a run.  Pure."""

from __future__ import annotations

from schemas.events import Event, EventType
from schemas.replays import ReplayRequest, Skip
from schemas.reports import Format
from store.events import RunDefaults
from store.replayed import Known


def decide(known: Known, request: ReplayRequest) -> Skip | tuple[Format, ...]:
    """The formats that the run of a recorded event is to render, or why it gets none.

    Without ``force`` a format whose report is there is not rendered again.  A
    run without formats tells, and renders nothing.
    """
    obstacle = _obstacle(known)
    if obstacle is not None:
        return obstacle
    wanted: tuple[Format, ...] = ()
    if request.renders and known.type is EventType.SCAN_COMPLETED:
        asked = known.formats if request.formats is None else request.formats
        wanted = tuple(name for name in asked if request.force or name not in known.ready)
    if request.tells:
        waits = known.needs_data and not request.renders
        return Skip.NOT_FETCHED if waits else wanted
    if wanted:
        return wanted
    return Skip.ALREADY_THERE if known.type is EventType.SCAN_COMPLETED else Skip.NO_REPORTS


def decide_new(
    event: Event, request: ReplayRequest, defaults: RunDefaults
) -> Skip | tuple[Format, ...]:
    """The same for an event that the ledger does not know."""
    if not request.renders:
        return Skip.UNKNOWN
    if event.type is not EventType.SCAN_COMPLETED:
        return ()
    return defaults.formats if request.formats is None else request.formats


def _obstacle(known: Known) -> Skip | None:
    if known.in_this_replay:
        return Skip.SELECTED_TWICE
    if known.in_flight:
        return Skip.IN_FLIGHT
    if known.superseded:
        return Skip.SUPERSEDED
    if not known.has_data and not known.needs_data:
        return Skip.DATA_GONE
    if known.inputs is None:
        return Skip.NO_RUN
    return None
