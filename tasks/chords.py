"""From a ticket to task messages: the chord of a run, or its short way.

Messages carry references, never scans.  Every task id holds the run, the
formats and the attempt, so no attempt ever meets another one's chord state in
the result backend; group ids are random, one per dispatch.  Every message of a
replay asks to wait behind live ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from celery import chord
from celery.canvas import Signature
from celery.signals import after_task_publish

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable
from schemas.reports import Format
from schemas.runs import RunTicket
from tasks import wiring
from tasks.app import (
    FETCH_DATA,
    FINISH_RUN,
    NOTE_CHORD_ERROR,
    RENDER_AND_FINISH,
    RENDER_REPORT,
    app,
)
from tasks.priorities import priorities_of
from tasks.publishing import broker_faults

FETCH, FINISH = "fetch", "finish"
"""The parts of a run that are no header."""

PUBLISHED_AT_ONCE = 50
"""Messages of one round trip to the broker."""


def dispatch(tickets: Iterable[RunTicket]) -> None:
    """Publish one attempt of each run: those of one message together, in one round trip.

    Raises BrokerUnavailable, after which any part of any chord may have been
    published.  That is harmless: the runs are in the ledger, the sweep
    dispatches what did not finish under the next attempt, and both attempts
    work on the same rows.
    """
    together = wiring.settings().broker_url.startswith("redis")  # others take one at a time
    alone: list[Signature] = []
    for ticket in tickets:  # drawn one by one: whoever gives them says with each that it lives
        message = _message(ticket)
        if message is not None and together:
            alone.append(message)
            if len(alone) == PUBLISHED_AT_ONCE:
                _publish_together(alone)
                alone = []
            continue
        with broker_faults():
            if message is None:
                _chord(ticket)
            else:
                message.apply_async()
    _publish_together(alone)


def header_sets(ticket: RunTicket, together_bytes: int) -> list[tuple[Format, ...]]:
    """How a run's formats are shared out among header tasks.

    All in one for a scan of at most ``together_bytes``, for there a task costs more
    than a light format does.  One each for a larger scan, whose formats are sooner
    there so, and for every attempt after the first, which some format may have broken.
    """
    if ticket.attempt == 1 and 0 < ticket.data_bytes <= together_bytes:
        return [ticket.formats]
    return [(name,) for name in ticket.formats]


def task_ids(run_id: str, attempt: int, formats: Sequence[str]) -> list[str]:
    """Every id under which a task of this attempt may have been published."""
    headers = dict.fromkeys((*formats, "+".join(formats)))
    return [f"{run_id}:{part}:a{attempt}" for part in (FETCH, FINISH, *headers) if part]


def _publish_together(messages: Sequence[Signature]) -> None:
    """Publish in one round trip.  Raises BrokerUnavailable."""
    if not messages:
        return
    try:
        with (
            broker_faults(),
            app.producer_or_acquire() as producer,
            producer.batch(PUBLISHED_AT_ONCE),
        ):
            for message in messages:
                message.apply_async(producer=producer, retry=False)
    except BrokerUnavailable:
        # What became of them is unknown, and publishing retries single messages alone.  A
        # message that is there twice finds the work of the other done.
        for message in messages:
            with broker_faults():
                message.apply_async()


def _message(ticket: RunTicket) -> Signature | None:
    """The one message that starts this attempt, or None where it takes a chord."""
    if ticket.needs_data:
        return _signature(FETCH_DATA, ticket, FETCH)
    if not ticket.formats:
        alone = _body(ticket).clone(args=([],))
        alone.link_error(_broken(ticket))
        return alone
    sets = header_sets(ticket, wiring.settings().together_bytes)
    if len(sets) > 1:
        return None
    whole = _rendering(RENDER_AND_FINISH, ticket, sets[0])  # nothing to wait for: no chord
    whole.link_error(_broken(ticket))
    return whole


def _chord(ticket: RunTicket) -> None:
    body = _body(ticket)
    body.link_error(_broken(ticket))
    chord(_header(ticket), app=app).apply_async((), {"body": body}, task_id=body.options["task_id"])


def _header(ticket: RunTicket) -> list[Signature]:
    sets = header_sets(ticket, wiring.settings().together_bytes)
    return [_rendering(RENDER_REPORT, ticket, formats) for formats in sets]


def _rendering(task: str, ticket: RunTicket, formats: Sequence[Format]) -> Signature:
    names = [name.value for name in formats]
    return _signature(task, ticket, "+".join(names), formats=names)


def _body(ticket: RunTicket) -> Signature:
    return _signature(FINISH_RUN, ticket, FINISH)


def _broken(ticket: RunTicket) -> Signature:
    return app.signature(
        NOTE_CHORD_ERROR,
        kwargs={"run_id": ticket.run_id, "attempt": ticket.attempt},
        priority=_priority(ticket),
    )


@after_task_publish.connect
def _header_published(sender: str | None = None, **_: Any) -> None:
    if sender in (RENDER_REPORT, RENDER_AND_FINISH):
        crash_here(CrashPoint.HEADER_PUBLISHED)


def _signature(task: str, ticket: RunTicket, part: str, **arguments: object) -> Signature:
    return app.signature(
        task,
        kwargs={"run_id": ticket.run_id, "attempt": ticket.attempt, **arguments},
        task_id=f"{ticket.run_id}:{part}:a{ticket.attempt}",
        priority=_priority(ticket),
    )


def _priority(ticket: RunTicket) -> int:
    return priorities_of(app.conf.broker_url).of(is_replay=ticket.is_replay)
