"""From a ticket to task messages: the chord of a run, or its short way.

Messages carry references, never scans.  Every task id holds the run, the
formats and the attempt, so no attempt ever meets another one's chord state in
the result backend; group ids are random, one per dispatch.  Every message of a
replay asks to wait behind live ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import chord
from celery.canvas import Signature
from celery.signals import after_task_publish

from schemas.crash_points import CrashPoint, crash_here
from schemas.reports import Format
from schemas.runs import RunTicket
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


def header_sets(formats: Iterable[Format]) -> list[tuple[Format, ...]]:
    """How a run's formats are shared out among header tasks: one each."""
    return [(name,) for name in formats]


def task_ids(run_id: str, attempt: int, formats: Iterable[str]) -> list[str]:
    """Every id under which a task of this attempt may have been published."""
    headers = ("+".join(names) for names in header_sets(Format(name) for name in formats))
    return [f"{run_id}:{part}:a{attempt}" for part in (FETCH, FINISH, *headers)]


def _dispatch_one(ticket: RunTicket) -> None:
    if ticket.needs_data:
        _signature(FETCH_DATA, ticket, FETCH).apply_async()
        return
    body = _signature(FINISH_RUN, ticket, FINISH)
    if not ticket.formats:
        body.apply_async(([],))
        return
    body.link_error(
        app.signature(
            NOTE_CHORD_ERROR,
            kwargs={"run_id": ticket.run_id, "attempt": ticket.attempt},
            priority=_priority(ticket),
        )
    )
    header = [
        _signature(
            RENDER_REPORT,
            ticket,
            "+".join(formats),
            formats=[name.value for name in formats],
        )
        for formats in header_sets(ticket.formats)
    ]
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
