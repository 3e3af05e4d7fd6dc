"""Reports that somebody asks for now, beside those that each run makes.

The tasks that the platform calls by name, and what they share with the command
``render``.  Nothing here is an attempt of a run: a row changes only when its
new artifact is in the store, and nobody is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from celery import Task

from languages.language import load_language
from schemas.errors import TransientError
from schemas.reports import Format
from schemas.runs import Run
from store import runs
from tasks import wiring
from tasks.app import app
from tasks.reports import check_data, noting, render_each
from tasks.retrying import retry_soon
from tasks.wiring import Wiring

ON_DEMAND: dict[str, Any] = {"acks_late": False, "reject_on_worker_lost": False}
"""Somebody waits for these and can ask again: a scan that kills its worker is not given back."""


@dataclass(frozen=True, slots=True)
class OnDemand:
    """What was made, and for each format that was not, why."""

    run: Run
    """With the language that was asked for."""
    made: tuple[runs.RenderedReport, ...]
    failures: dict[Format, str]
    at: datetime


def render_on_demand(
    parts: Wiring,
    scan_id: str,
    formats: Sequence[Format] | None = None,
    language: str | None = None,
) -> OnDemand:
    """Render a recorded scan now: its newest run's frozen inputs, in ``language`` if one is given.

    Without ``formats`` those that its run was recorded with.  Safe to repeat: the same
    bytes under the same keys.  Raises NotFound for an unknown scan, InvalidSettings for
    an unknown language, InvalidEvent where the data never came or is deleted, TransientError.
    """
    if language is not None:
        load_language(language)  # before anything is asked of the ledger
    with parts.ledger.read() as connection:
        run_id = runs.latest_run_of_scan(connection, scan_id.strip().lower())
        run = runs.load_run(connection, run_id)
        recorded = runs.formats_of_event(connection, run.event_pk)  # a replay has some of them
    check_data(run)
    if language is not None:
        run = replace(run, inputs=msgspec.structs.replace(run.inputs, language=language))
    made, failures = render_each(parts, run, recorded if formats is None else formats)
    now = parts.clock()
    with noting(parts, run, made) as connection:
        runs.save_on_demand(connection, run, made, now)
    return OnDemand(run, tuple(made), failures, now)


@app.task(name="generate_report_async", bind=True, **ON_DEMAND)
def generate_report_async(self: Task[..., Any], scan_id: str, format: str) -> dict[str, Any]:
    """Render one format of a recorded scan now.

    Returns ``report_id, scan_id, format, file_path, file_size, generated_at, status``
    (``completed``, or ``failed`` with ``error``).  Raises NotFound for an unknown
    scan and ValueError for an unknown format.
    """
    return _generate(self, scan_id, [Format(format)])[0]


@app.task(name="generate_multiple_reports_async", bind=True, **ON_DEMAND)
def generate_multiple_reports_async(
    self: Task[..., Any], scan_id: str, formats: list[str]
) -> dict[str, Any]:
    """Render several formats of a recorded scan now: ``reports, total_generated, total_failed``."""
    made = _generate(self, scan_id, [Format(name) for name in formats])
    failed = sum(1 for report in made if report["status"] == "failed")
    return {
        "scan_id": scan_id,
        "reports": made,
        "total_generated": len(made) - failed,
        "total_failed": failed,
    }


@app.task(name="export_scan_to_csv_async", bind=True, **ON_DEMAND)
def export_scan_to_csv_async(self: Task[..., Any], scan_id: str) -> dict[str, Any]:
    """Render the CSV of a recorded scan now; the result is that of ``generate_report_async``."""
    return _generate(self, scan_id, [Format.CSV])[0]


def _generate(
    task: Task[..., Any], scan_id: str, formats: Sequence[Format]
) -> list[dict[str, Any]]:
    parts = wiring.current()
    try:
        rendered = render_on_demand(parts, scan_id, formats)
    except TransientError as error:
        raise retry_soon(task, error, parts) from error
    done = {report.format: _completed(rendered, report) for report in rendered.made}
    return [done.get(name) or _failed(rendered, name) for name in formats]


def _completed(rendered: OnDemand, report: runs.RenderedReport) -> dict[str, Any]:
    return {
        "report_id": runs.report_id(rendered.run, report.format),
        "scan_id": rendered.run.scan_id,
        "format": report.format.value,
        "file_path": report.uri,
        "file_size": report.size_bytes,
        "generated_at": rendered.at.isoformat(),
        "status": "completed",
        "error": None,
    }


def _failed(rendered: OnDemand, name: Format) -> dict[str, Any]:
    return {
        "report_id": runs.report_id(rendered.run, name),
        "scan_id": rendered.run.scan_id,
        "format": name.value,
        "file_path": None,
        "file_size": None,
        "generated_at": None,
        "status": "failed",
        "error": rendered.failures[name],
    }
