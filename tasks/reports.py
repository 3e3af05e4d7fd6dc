"""The header: each task renders some formats of one run and puts them in the store.

The stop after ``chords.dispatch``; the next is ``finish.settle``.  A header
task never raises, because a raised header loses the chord's body: whatever
happens to a format is a row in the ledger and a returned status.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection

from compliance.assess import Bounds, assess
from renderers.registry import RENDERERS, render
from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import InvalidEvent, NotFound, PermanentError, RenderFailed, TransientError
from schemas.presentation import PLAIN, Presentation
from schemas.reports import Format, Report
from schemas.runs import FrozenInputs, Run, RunState
from schemas.scans import decode_scan
from schemas.settings import environment_name
from store import runs
from store.earlier_scans import freeze_again
from store.presentations import load_presentation
from tasks import wiring
from tasks.app import RENDER_REPORT, app
from tasks.comparing import frozen_comparison
from tasks.retrying import retry_soon
from tasks.wiring import Wiring, frozen_pack

log = structlog.get_logger("tasks.reports")

_assessed: OrderedDict[tuple[str, str, FrozenInputs], Report] = OrderedDict()
"""The last Reports of this process: the header tasks of one run need the same one."""

ASSESSED_KEPT = 2

ASSESSED_COOKIES = 10_000
"""Cookies that Reports may hold beside the one being made: 50,000 take some 60 MB."""

_presentations: OrderedDict[str, Presentation] = OrderedDict()
"""The last presentations of this process, by digest, which never means another."""

PRESENTATIONS_KEPT = 4


@app.task(name=RENDER_REPORT, bind=True, ignore_result=True)
def render_report(
    self: Task[..., Any], run_id: str, attempt: int, formats: list[str]
) -> dict[str, str]:
    """Render ``formats`` of a run: a header task."""
    return render_attempt(self, run_id, attempt, formats)


def render_attempt(
    task: Task[..., Any], run_id: str, attempt: int, formats: list[str]
) -> dict[str, str]:
    """Render ``formats`` of a run; each is ready, failed, unfinished, superseded or cancelled.

    ``unfinished`` means that a passing fault outlasted the fast retries; the
    body then leaves the run to the sweep's next attempt.  ``gone``: the run was erased.
    Raises Retry, and nothing else.
    """
    parts = wiring.current()
    wanted = [Format(name) for name in formats]
    try:
        return render_formats(parts, run_id, wanted)
    except TransientError as error:
        if task.request.retries < parts.settings.task_max_retries:
            raise retry_soon(task, error, parts) from error
        log.warning("render_unfinished", run_id=run_id, attempt=attempt, error=str(error))
        return dict.fromkeys(formats, "unfinished")
    except NotFound:
        log.info("run_gone", run_id=run_id, formats=formats)
        return dict.fromkeys(formats, "gone")
    except SoftTimeLimitExceeded:
        log.error("render_timed_out", run_id=run_id, formats=formats)
        if len(wanted) > 1:  # one of them hangs: the next attempt has a task for each
            return dict.fromkeys(formats, "unfinished")
        return _fail_all(
            parts,
            run_id,
            wanted,
            f"took longer than {parts.settings.task_soft_time_limit_s} s "
            "(SCANHERALD_TASK_SOFT_TIME_LIMIT_S)",
        )
    except Exception as error:  # a header must not raise: the bug is logged whole, the rest goes on
        log.exception("render_crashed", run_id=run_id, formats=formats)
        if len(wanted) > 1:  # one of them it was: the next attempt has a task for each
            return dict.fromkeys(formats, "unfinished")
        return _fail_all(parts, run_id, wanted, f"internal error: {type(error).__name__}: {error}")


def render_formats(parts: Wiring, run_id: str, formats: Sequence[Format]) -> dict[str, str]:
    """Render and store formats of a run; what cannot be rendered is noted as failed.

    Raises TransientError when the ledger or the store cannot be used now; a
    repeat renders what is not ready yet, to the same bytes under the same key.
    Raises NotFound for a run that was erased, be it meanwhile: nothing of it is left.
    Formats of which an earlier start never ended are counted, made and noted one by
    one, so that the one that kills its worker takes no other along.
    """
    with parts.ledger.write() as connection:
        freeze_again(connection, run_id)
        run = runs.load_run(connection, run_id)
        if run.superseded:
            return dict.fromkeys([name.value for name in formats], "superseded")
        if run.state is RunState.CANCELLED:
            return dict.fromkeys([name.value for name in formats], "cancelled")
        one_by_one = len(formats) > 1 and runs.has_unended_start(connection, run, formats)
        if not one_by_one:
            start = runs.start_rendering(
                connection,
                run,
                formats,
                max_tries=parts.settings.render_max_tries,
                now=parts.clock(),
            )
    if one_by_one:
        return {
            name: status
            for one in formats
            for name, status in render_formats(parts, run_id, [one]).items()
        }
    crash_here(CrashPoint.RENDER_COUNTED)
    statuses = {name.value: status for name, status in start.statuses.items()}
    if not start.wanted:
        return statuses
    try:
        rendered, failures = render_each(parts, run, start.wanted)
    except TransientError as error:
        _note_passing_fault(parts, run, start.wanted, str(error))
        raise
    with noting(parts, run, rendered) as connection:
        runs.save_rendered(connection, run, rendered, parts.clock())
        for name, reason in failures.items():
            runs.save_render_error(connection, run, name, reason, final=True)
    crash_here(CrashPoint.RENDER_SAVED)
    statuses |= {report.format.value: "ready" for report in rendered}
    return statuses | {name.value: "failed" for name in failures}


@contextmanager
def noting(
    parts: Wiring, run: Run, rendered: Sequence[runs.RenderedReport]
) -> Iterator[Connection]:
    """The transaction that notes artifacts.  Raises NotFound for a run erased meanwhile.

    Then the artifacts are deleted again.  Killed in between, they are orphans,
    which the nightly search deletes.
    """
    with parts.ledger.write() as connection:
        is_there = runs.is_recorded(connection, run.run_id)
        if is_there:
            yield connection
    if not is_there:
        parts.artifacts.delete_many([report.artifact_key for report in rendered])
        raise NotFound(f"run {run.run_id} was erased")


def render_each(
    parts: Wiring, run: Run, formats: Sequence[Format]
) -> tuple[list[runs.RenderedReport], dict[Format, str]]:
    """Render and store formats; each that cannot be has its reason.  Raises TransientError."""
    made: list[runs.RenderedReport] = []
    failures: dict[Format, str] = {}
    try:
        report = assessed_report(parts, run)
        presentation = frozen_presentation(parts, run)
    except PermanentError as error:
        log.error("scan_not_assessed", run_id=run.run_id, error=str(error))
        return [], dict.fromkeys(formats, str(error))
    for name in formats:
        try:
            with parts.tracer.span(
                f"render {name}",
                run.traceparent,
                run_id=run.run_id,
                attempt=run.attempt,
                format=name.value,
            ):
                made.append(_render_one(parts, run, report, presentation, name))
        except RenderFailed as error:
            log.error("render_failed", run_id=run.run_id, format=name.value, error=str(error))
            failures[name] = str(error)
        except (TransientError, NotFound, SoftTimeLimitExceeded):
            raise
        except Exception as error:  # a bug in one format must not take the others along
            log.exception("render_crashed", run_id=run.run_id, formats=[name.value])
            failures[name] = f"internal error: {type(error).__name__}: {error}"
    parts.artifacts.settle([report.artifact_key for report in made])
    return made, failures


def assessed_report(parts: Wiring, run: Run) -> Report:
    """The Report of a run: a pure function of its event's data and its frozen inputs.

    Raises PermanentError where the scan cannot be judged, LedgerUnavailable.
    """
    check_data(run)
    key = (run.run_id, run.data_sha256, run.inputs)
    if key in _assessed:
        _assessed.move_to_end(key)
        return _assessed[key]
    _make_room()
    bounds = Bounds(parts.settings.max_cookies, parts.settings.max_string_bytes)
    try:
        compared = frozen_comparison(
            parts.ledger, run.inputs, run.occurred_at, max_cookies=bounds.max_cookies
        )
        report = assess(
            decode_scan(run.data),
            scan_sha256=run.data_sha256,
            pack=frozen_pack(parts, run.inputs),
            previous=compared.previous,
            since=compared.since,
            history=run.inputs.history,
            language=run.inputs.language,
            bounds=bounds,
        )
    except (PermanentError, TransientError, SoftTimeLimitExceeded):
        raise
    except Exception as error:  # a scan that breaks our judgement must not take its run along
        log.exception("assess_crashed", run_id=run.run_id)
        raise RenderFailed(f"the scan could not be judged: {type(error).__name__}") from error
    _assessed[key] = report
    return report


def check_data(run: Run) -> None:
    """Raises InvalidEvent where the scan's bytes are not there, which says why."""
    if run.data:
        return
    if run.data_deleted:
        raise InvalidEvent(
            f"the data of scan {run.scan_id} has been deleted, as its retention says "
            f"({environment_name('scans_retention_days')}); publish it again under another event id"
        )
    raise InvalidEvent(f"the data of scan {run.scan_id} has not been fetched yet")


def _make_room() -> None:
    """Let go of the oldest Reports before the next is made, not after: both at once is the peak."""
    while _assessed and (
        len(_assessed) >= ASSESSED_KEPT
        or sum(len(report.cookies) for report in _assessed.values()) > ASSESSED_COOKIES
    ):
        _assessed.popitem(last=False)


def frozen_presentation(parts: Wiring, run: Run) -> Presentation:
    """The look that a run was recorded with, whatever the brand file says today.

    Raises NotFound where the ledger has lost it, LedgerUnavailable.
    """
    digest = run.inputs.presentation
    if digest is None:
        return PLAIN
    if digest not in _presentations:
        with parts.ledger.read() as connection:
            loaded = load_presentation(connection, digest)
        while len(_presentations) >= PRESENTATIONS_KEPT:
            _presentations.popitem(last=False)
        _presentations[digest] = loaded
    return _presentations[digest]


_encoder = msgspec.json.Encoder(order="deterministic")


def artifact_key(run: Run, scan_id: str, name: Format) -> str:
    """Where an artifact lies in the store.

    Whatever the bytes are a function of is part of it, the scan's content and all
    frozen inputs: the same scan id sent again with other content, or run again
    under another brand or rule pack or after another scan, must never land on, or
    under, what a slow earlier run is writing.
    """
    inputs = msgspec.structs.replace(run.inputs, language="")  # the name says it, to be read
    frozen = hashlib.sha256(_encoder.encode(inputs)).hexdigest()
    folder = f"{scan_id}/{run.data_sha256[:12]}-{frozen[:12]}"
    return f"{folder}/report.{run.inputs.language}{RENDERERS[name].suffix}"


def _render_one(
    parts: Wiring, run: Run, report: Report, presentation: Presentation, name: Format
) -> runs.RenderedReport:
    began = time.perf_counter()
    data = render(report, name, presentation)
    spent_ms = (time.perf_counter() - began) * 1000
    key = artifact_key(run, report.identity.scan_id, name)
    crash_here(CrashPoint.RENDER_RENDERED)
    parts.artifacts.place(key, data)
    crash_here(CrashPoint.RENDER_PUT)
    log.info(
        "artifact_stored",
        run_id=run.run_id,
        format=name.value,
        bytes=len(data),
        render_ms=round(spent_ms, 1),
    )
    return runs.RenderedReport(
        format=name,
        artifact_key=key,
        uri=parts.artifacts.uri(key),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rule_pack=f"{report.identity.rule_pack}@{report.identity.rule_pack_version}",
        content_sha256=report.content_sha256,
        render_ms=spent_ms,
    )


def _note_passing_fault(parts: Wiring, run: Run, formats: Sequence[Format], error: str) -> None:
    """Say in the ledger why a format is late; if the ledger is the fault, the log must do.

    A start that ended so was no poison: the count begins again, or an outage of
    the store would fail the format for good.
    """
    try:
        with parts.ledger.write() as connection:
            runs.forgive_starts(connection, run, formats)
            for name in formats:
                runs.save_render_error(connection, run, name, error, final=False)
    except TransientError as second:
        log.warning("fault_not_noted", run_id=run.run_id, error=str(second))


def _fail_all(parts: Wiring, run_id: str, formats: Sequence[Format], reason: str) -> dict[str, str]:
    try:
        with parts.ledger.write() as connection:
            run = runs.load_run(connection, run_id)
            for name in formats:
                runs.save_render_error(connection, run, name, reason, final=True)
    except (TransientError, NotFound) as error:
        log.warning("failure_not_noted", run_id=run_id, error=str(error))
        return {name.value: "unfinished" for name in formats}
    return {name.value: "failed" for name in formats}
