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
from schemas.reports import Format
from schemas.runs import RunTicket
from tasks import wiring
from tasks.app import FETCH_DATA, FINISH_RUN, NOTE_CHORD_ERROR, RENDER_REPORT, app
from tasks.priorities import priorities_of
from tasks.publishing import broker_faults

FETCH, FINISH = "fetch", "finish"
"""The parts of a run that are no header."""


def dispatch(tickets: Iterable[RunTicket]) -> None:
    """Publish one attempt of each run.

    Raises BrokerUnavailable, after which any part of any chord may have been
    published.  That is harmless: the runs are in the ledger, the sweep
    dispatches what did not finish under the next attempt, and both attempts
    work on the same rows.
    """
    for ticket in tickets:
        with broker_faults():
            _dispatch_one(ticket)


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


def _dispatch_one(ticket: RunTicket) -> None:
    if ticket.needs_data:
        _signature(FETCH_DATA, ticket, FETCH).apply_async()
        return
    body = _signature(FINISH_RUN, ticket, FINISH)
    if not ticket.formats:
        body.apply_async(([],))
        return
    broken = app.signature(
        NOTE_CHORD_ERROR,
        kwargs={"run_id": ticket.run_id, "attempt": ticket.attempt},
        priority=_priority(ticket),
    )
    header = [
        _signature(
            RENDER_REPORT,
            ticket,
            "+".join(formats),
            formats=[name.value for name in formats],
        )
        for formats in header_sets(ticket, wiring.settings().together_bytes)
    ]
    if len(header) == 1:
        # Nothing to wait for: the body is the one task's callback, published before that is
        # acknowledged, and nothing of it is kept in the result store.
        header[0].link(body)
        header[0].link_error(broken)
        header[0].apply_async()
        return
    body.link_error(broken)
    chord(header, app=app).apply_async((), {"body": body}, task_id=body.options["task_id"])


@after_task_publish.connect
def _header_published(sender: str | None = None, **_: Any) -> None:
    if sender == RENDER_REPORT:
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
