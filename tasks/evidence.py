"""Gathers the evidence on one scan: its original bytes, and every artifact that a bundle holds.

What was rendered and delivered is taken as it is; what is missing is rendered
now.  The bundle itself is made by ``store.bundles``, which knows no ledger.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import msgspec
import structlog

from schemas.bundles import BUNDLE_REPORTS
from schemas.errors import InvalidBundle, InvalidEvent, NotFound, RenderFailed, TransientError
from schemas.reports import Format
from schemas.runs import Run, RunState
from store import runs
from store.bundles import Bundle, build_bundle, content_digest
from store.signing_keys import SigningKey
from tasks.on_demand import render_on_demand
from tasks.reports import assessed_report, check_data
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.evidence")


def make_bundle(
    parts: Wiring, scan_id: str, key: SigningKey, language: str | None = None
) -> Bundle:
    """The evidence bundle of a scan, its reports in ``language`` or that of its run.

    Safe to repeat: the same bytes.  Raises NotFound for an unknown scan,
    InvalidSettings for an unknown language, InvalidEvent where its run is dead or
    its data never came or is deleted, RenderFailed, InvalidBundle where its artifacts do not
    belong together, TransientError.
    """
    run = _load(parts, scan_id, language)
    artifacts = _stored(parts, run)
    missing = [name for name in BUNDLE_REPORTS if name not in artifacts]
    if missing:
        artifacts |= _render(parts, run, missing)
        _check_one_report(parts, run, artifacts)
    return build_bundle(run.data, artifacts, key)


def _load(parts: Wiring, scan_id: str, language: str | None) -> Run:
    with parts.ledger.read() as connection:
        run = runs.load_run(
            connection, runs.latest_run_of_scan(connection, scan_id.strip().lower())
        )
    if run.state in (RunState.DEAD, RunState.CANCELLED):
        raise InvalidEvent(
            f"the run of scan {scan_id} is {run.state}; for its reason see: scanherald runs "
            f"--state {run.state}; once that is mended: scanherald runs retry {run.run_id}"
        )
    check_data(run)
    if language is None:
        return run
    return replace(run, inputs=msgspec.structs.replace(run.inputs, language=language))


def _stored(parts: Wiring, run: Run) -> dict[Format, bytes]:
    """This run's artifacts that are in the store as they were recorded, all of one judgement.

    That of the JSON report, which is the one that ``verify`` can read: an artifact
    that shows another Report, or was made before that was kept, is left out.
    """
    with parts.ledger.read() as connection:
        rows = runs.reports_of_run(connection, run)
    found: dict[Format, bytes] = {}
    for name in BUNDLE_REPORTS:
        row = rows.get(name)
        if row is None or row["status"] != "ready" or row["run_id"] != run.run_id:
            continue
        try:
            data = parts.artifacts.get(row["artifact_key"])
        except NotFound:
            data = b""
        if hashlib.sha256(data).hexdigest() == row["sha256"]:
            found[name] = data
        else:
            log.warning("artifact_not_as_recorded", run_id=run.run_id, format=name.value)
    if Format.JSON not in found:
        return {}
    judgement = content_digest(found[Format.JSON])
    return {name: data for name, data in found.items() if rows[name]["content_sha256"] == judgement}


def _render(parts: Wiring, run: Run, formats: list[Format]) -> dict[Format, bytes]:
    rendered = render_on_demand(parts, str(run.scan_id), formats, run.inputs.language)
    if rendered.failures:
        raise RenderFailed("; ".join(f"{name}: {why}" for name, why in rendered.failures.items()))
    if rendered.run.run_id != run.run_id:
        raise TransientError(f"scan {run.scan_id} came again just now; make its bundle again")
    return {report.format: parts.artifacts.get(report.artifact_key) for report in rendered.made}


def _check_one_report(parts: Wiring, run: Run, artifacts: dict[Format, bytes]) -> None:
    """What was rendered now must say what was rendered then, by an earlier release perhaps."""
    then, now = content_digest(artifacts[Format.JSON]), assessed_report(parts, run).content_sha256
    if then != now:
        formats = " ".join(f"--format {name}" for name in BUNDLE_REPORTS)
        raise InvalidBundle(
            f"the stored reports of scan {run.scan_id} were made by another release or with other "
            "bounds, and what is missing cannot be added to them; render all anew: "
            f"scanherald render {run.scan_id} --language {run.inputs.language} {formats}"
        )
