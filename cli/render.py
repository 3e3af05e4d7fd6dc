"""``render``: a recorded scan's report now, in any language and format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import print_rows
from cli.records import AsJson
from cli.settings import load_settings
from schemas.errors import PermanentError, RenderFailed
from schemas.reports import Format

if TYPE_CHECKING:
    from store.runs import RenderedReport
    from tasks.on_demand import OnDemand
    from tasks.wiring import Wiring

NAME_CHARACTERS = 100
"""Of a domain in a file's name: the rest of the name and any file system's limit fit with it."""


def render_command(
    scan: Annotated[str, typer.Argument(help="Scan id, as scanherald reports --json shows it.")],
    language: Annotated[
        str | None, typer.Option(help="Such as de; the run's own when left out.")
    ] = None,
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", help="Repeat for several; those of the run when left out."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for copies, beside the artifact store.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render a recorded scan again, here and now, beside the reports that are there.

    It looks as it did when it was recorded, and nobody is notified.
    """
    from tasks.logs import configure_logs
    from tasks.on_demand import render_on_demand
    from tasks.wiring import wire

    settings = load_settings()
    configure_logs(settings.model_copy(update={"log_level": "ERROR"}))  # the table says the rest
    parts = wire(settings)
    try:
        parts.ledger.migrate()
        wanted = list(dict.fromkeys(formats)) if formats else None
        rendered = render_on_demand(parts, scan, wanted, language)
        files = [_row(parts, rendered, report, output) for report in rendered.made]
    finally:
        parts.close()
    print_rows(
        files,
        ("format", "language", "size_bytes", "sha256", "file"),
        as_json=as_json,
        empty="No format came out.",
    )
    if rendered.failures:
        raise RenderFailed("; ".join(f"{name}: {why}" for name, why in rendered.failures.items()))


def file_name(domain: str, scan_id: str, language: str, suffix: str) -> str:
    """A name for a copy that stays in its folder, whatever the scanner called the domain."""
    safe = re.sub(r"[^a-z0-9.-]+", "_", domain.lower()).strip(".-")[:NAME_CHARACTERS]
    return f"{safe or 'scan'}-{scan_id}.{language}{suffix}"


def _row(
    parts: Wiring, rendered: OnDemand, report: RenderedReport, output: Path | None
) -> dict[str, Any]:
    place = report.uri if output is None else str(_copy(parts, rendered, report, output))
    return {
        "scan_id": rendered.run.scan_id,
        "domain": rendered.run.subject,
        "format": report.format.value,
        "language": rendered.run.inputs.language,
        "size_bytes": report.size_bytes,
        "sha256": report.sha256,
        "uri": report.uri,
        "file": place,
    }


def _copy(parts: Wiring, rendered: OnDemand, report: RenderedReport, folder: Path) -> Path:
    run = rendered.run
    suffix = f".{report.format.value}"
    path = folder / file_name(run.subject or "", str(run.scan_id), run.inputs.language, suffix)
    data = parts.artifacts.get(report.artifact_key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise PermanentError(f"cannot write {path}: {error.strerror}") from error
    return path
