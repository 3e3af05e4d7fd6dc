"""The body: settles a run, derives what there is to tell, plans and starts deliveries.

The stop after the header; the next is ``notifications.deliver``.  It believes
the ledger, not the header's returned statuses: an earlier attempt may have
rendered what this one found ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection, RowMapping

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import (
    BrokerUnavailable,
    InvalidEvent,
    InvalidSettings,
    PermanentError,
    TransientError,
)
from schemas.events import EventType
from schemas.notifications import REASONS, ArtifactLink, Notification
from schemas.reports import Format, Report
from schemas.runs import Run
from store import runs
from store.deliveries import DeliveryTicket
from tasks import wiring
from tasks.app import FINISH_RUN, NOTE_CHORD_ERROR, app
from tasks.attempts import begin, forgive, put_off
from tasks.derive import derive_from_event, derive_from_report, derive_without_report
from tasks.notifications import start_deliveries
from tasks.oddities import find_oddities
from tasks.reports import assessed_report
from tasks.retrying import retry_soon
from tasks.telling import plan
from tasks.telling_again import plan_again
from tasks.violations import follow_violations
from tasks.wiring import Wiring, frozen_pack

log = structlog.get_logger("tasks.finish")


@app.task(name=FINISH_RUN, bind=True, ignore_result=True)
def finish_run(
    self: Task[..., Any],
    header: list[dict[str, str]] | dict[str, str],
    run_id: str,
    attempt: int,
) -> None:
    """Settle a run.  ``header`` holds the statuses of the header's tasks, for the log.

    A dict where a message from before ``one_task`` is still queued: its one header task
    calls this back.
    """
    finish_attempt(self, header if isinstance(header, list) else [header], run_id, attempt)


def finish_attempt(
    task: Task[..., Any], statuses: list[dict[str, str]], run_id: str, attempt: int
) -> None:
    """Settle a run and start its deliveries, or leave it to the sweep.

    Raises Retry, and LedgerUnavailable where not even that can be noted.
    """
    parts = wiring.current()
    try:
        # The first delivery of a body behind a header is not counted: the header's start was, for
        # this attempt.  What kills its worker comes back marked as redelivered, and is.
        came_back = bool((task.request.delivery_info or {}).get("redelivered"))
        if (came_back or not statuses) and not begin(parts, run_id):
            return
        tickets = settle(parts, run_id, attempt)
    except SoftTimeLimitExceeded:
        put_off(parts, run_id, attempt, "the task took longer than one may take")
        return
    except PermanentError as error:
        # Such as an encryption key that fits nothing: the run's end will say so.
        put_off(parts, run_id, attempt, str(error))
        return
    except TransientError as error:
        forgive(parts, run_id)
        if task.request.retries < parts.settings.task_max_retries:
            raise retry_soon(task, error, parts) from error
        put_off(parts, run_id, attempt, str(error))
        return
    log.info("run_finished", run_id=run_id, header=statuses, deliveries=len(tickets))
    try:
        start_deliveries(tickets)
    except BrokerUnavailable as error:
        log.warning("deliveries_left_to_sweep", run_id=run_id, error=str(error))


@app.task(name=NOTE_CHORD_ERROR, ignore_result=True)
def note_chord_error(failed_task_id: str, *, run_id: str, attempt: int) -> None:
    """A task of an attempt ended without saying how: let the sweep go on now.

    It only marks the ledger.  A single positional argument makes Celery queue
    this as a task instead of calling it where the chord broke.
    """
    parts = wiring.current()
    log.error("attempt_broken", run_id=run_id, attempt=attempt, failed_task_id=failed_task_id)
    with parts.ledger.write() as connection:
        runs.postpone(
            connection,
            run_id,
            attempt,
            "a task ended without saying how: killed by its time limit or with its worker, or "
            "by a fault that outlasted its retries",
            parts.clock(),
        )


def settle(parts: Wiring, run_id: str, attempt: int) -> list[DeliveryTicket]:
    """Settle a run in one transaction with the deliveries it causes; return those to start.

    Its domain's violations move on in the same transaction.  A repeat, or a second
    attempt's body, finds the run settled and does nothing.  Killed before the
    commit, none of it has happened; after it, the sweep starts the deliveries.
    A replay's run that is not asked to tell plans no delivery and moves no
    violation.  Raises TransientError.
    """
    with parts.ledger.read() as connection:
        run = runs.load_run(connection, run_id)
        shown = _shown_formats(connection, run)
        rows = runs.reports_of_run(connection, run) if shown else {}
    if run.state.is_settled:
        return []
    with parts.tracer.span("finish", run.traceparent, run_id=run_id, attempt=attempt):
        return _settle_loaded(parts, run, shown, rows, attempt)


def _settle_loaded(
    parts: Wiring,
    run: Run,
    shown: tuple[Format, ...],
    rows: Mapping[Format, RowMapping],
    attempt: int,
) -> list[DeliveryTicket]:
    if run.superseded:
        _settle_superseded(parts, run)
        return []
    late = [
        name
        for name in run.formats
        if name not in rows
        or rows[name]["run_id"] != run.run_id
        or rows[name]["status"] == "pending"
    ]
    if late:
        _postpone(parts, run, attempt, [(name.value, rows.get(name)) for name in late])
        return []
    artifacts = tuple(
        ArtifactLink(
            format=name.value,
            uri=link(parts, rows[name]["artifact_key"], rows[name]["uri"]),
            size_bytes=rows[name]["size_bytes"],
            sha256=rows[name]["sha256"],
        )
        for name in shown
        if name in rows and rows[name]["status"] == "ready"
    )
    ready = {artifact.format for artifact in artifacts}
    missing = tuple(name.value for name in shown if name not in ready)
    report, told = _derive(parts, run, artifacts, missing)
    with parts.ledger.write() as connection:
        summary = f"{len(artifacts)} artifacts, {len(missing)} failed"
        score = report.score.value if report else None
        if not runs.settle_done(connection, run, parts.clock(), score=score, summary=summary):
            return []
        tickets = _tell(connection, parts, run, report, told, artifacts, summary)
        crash_here(CrashPoint.BODY_SETTLING)
    crash_here(CrashPoint.BODY_SETTLED)
    return tickets


def _shown_formats(connection: Connection, run: Run) -> tuple[Format, ...]:
    """The formats that news of a run speaks of: a replay may render but some of them, or none."""
    if run.replay_id is None:
        return run.formats
    return runs.formats_of_event(connection, run.event_pk)


def _tell(
    connection: Connection,
    parts: Wiring,
    run: Run,
    report: Report | None,
    told: list[Notification],
    artifacts: tuple[ArtifactLink, ...],
    summary: str,
) -> list[DeliveryTicket]:
    """Move violations on, plan what there is to tell, and note it: in the body's transaction."""
    if not run.tells:
        return []
    if report is not None:
        told = told + follow_violations(connection, parts, run, report, artifacts)
    tickets, known = plan(
        connection,
        parts,
        told,
        run_id=run.run_id,
        owner=run.user_id,
        replay_id=run.replay_id,
    )
    if run.replay_id is not None:
        return tickets + plan_again(connection, parts, run, told, known, artifacts)
    summary += f", {len(told)} notifications"
    if known:
        summary += f", {len(known)} of them told before: {', '.join(known)}"
    runs.note_outcome(connection, run, summary)
    return tickets


def foresee_news(parts: Wiring, run: Run) -> list[Notification]:
    """What the body would derive if a run were settled now, without its artifacts.

    Nothing is written, so the violations that it would be the first to tell of are
    not among it.  Raises LedgerUnavailable.
    """
    return _derive(parts, replace(run, formats=()), (), ())[1]


def _settle_superseded(parts: Wiring, run: Run) -> None:
    """The scan was sent again with other content: the later run tells of it."""
    log.info("run_superseded", run_id=run.run_id, scan_id=run.scan_id)
    with parts.ledger.write() as connection:
        runs.settle_done(
            connection,
            run,
            parts.clock(),
            score=None,
            summary="superseded: the same scan id came again in a later event",
        )


def link(parts: Wiring, key: str, uri: str) -> str:
    """The address a reader opens: below the public URL where there is one."""
    base = parts.settings.public_url
    return uri if base is None else f"{base.rstrip('/')}/{key}"


def _derive(
    parts: Wiring, run: Run, artifacts: tuple[ArtifactLink, ...], missing: tuple[str, ...]
) -> tuple[Report | None, list[Notification]]:
    if run.event_type is not EventType.SCAN_COMPLETED:
        return None, derive_from_event(run)
    if run.formats and not artifacts:
        # No format came out: what killed or broke all of them must not meet the body too.
        reason = "not_rendered"
        return None, derive_without_report(run, missing, reason, REASONS[reason])
    try:
        report = assessed_report(parts, run)
        pack = frozen_pack(parts, run.inputs)
    except PermanentError as error:
        return None, derive_without_report(run, missing, _reason(error), str(error))
    oddities = find_oddities(parts, run, report) if run.tells else []
    return report, derive_from_report(run, report, pack, artifacts, missing, oddities)


def _reason(error: PermanentError) -> str:
    """Why a scan cannot be judged, as people are told: one of REASONS."""
    match error:
        case InvalidSettings():
            return "rules_gone"
        case InvalidEvent():
            return "unreadable"
        case _:
            return "not_judged"


def _postpone(parts: Wiring, run: Run, attempt: int, late: list[tuple[str, Any]]) -> None:
    """Some format is not there for a passing reason: the sweep's next attempt makes it."""
    reasons = "; ".join(
        f"{name}: {(row or {}).get('error') or 'not rendered yet'}" for name, row in late
    )
    put_off(parts, run.run_id, attempt, reasons)
