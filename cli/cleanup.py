"""``cleanup``: what the nights delete, by hand: whole, counted, or only counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cli.output import cell, print_json
from cli.records import AsJson
from cli.settings import environment_name, load_settings
from schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from schemas.settings import Settings
    from tasks.cleanup import Cleaned, Limits
    from tasks.wiring import Wiring


class Part(StrEnum):
    """What there is to clean, in the order in which it is: no part counts what another deletes."""

    ORPHANS = "orphans"
    NOTIFICATIONS = "notifications"
    EVENTS = "events"
    SCANS = "scans"
    REPORTS = "reports"


def cleanup_command(
    part: Annotated[
        Part | None, typer.Argument(help="All that the settings let go of, when left out.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="Older than this. [default: the settings']")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, by the same queries; change nothing.")
    ] = False,
    lost: Annotated[
        bool, typer.Option("--lost", help="Believe a store that has none of its artifacts left.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what is older than its retention, and search for orphans; nothing in use.

    orphans: artifacts that no report names, reports whose artifact is gone.
    notifications: settled deliveries, attempts, what was said in them. events:
    whole records, down to their identity. scans: their bytes. reports: artifacts.
    The same happens every night, within a bound of time.
    """
    from tasks.cleanup import Limits
    from tasks.logs import configure_logs
    from tasks.wiring import wire

    settings = load_settings()
    configure_logs(settings.model_copy(update={"log_level": "ERROR"}))  # the numbers say the rest
    wanted = _wanted(settings, part, days)
    parts = wire(settings)
    parts.ledger.migrate()
    try:
        with progress_line("cleanup") as progress:
            limits = Limits(dry_run=dry_run, progress=progress)
            rows = [
                _row(name, age, _clean(parts, name, age, limits, lost=lost)) for name, age in wanted
            ]
    finally:
        parts.close()
    if as_json:
        print_json({"dry_run": dry_run, "parts": rows})
        return
    _print(rows, dry_run=dry_run)


@contextmanager
def progress_line(title: str) -> Iterator[Callable[[str, int], None]]:
    """One changing line on a terminal's standard error; nothing anywhere else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _part, _done: None
        return
    with console.status(title) as line:
        yield lambda part, done: line.update(f"{title}: {part} {done:,}")


def _wanted(
    settings: Settings, part: Part | None, days: int | None
) -> list[tuple[Part, int | None]]:
    """The parts to clean with their days; None for orphans, which have none."""
    if days is not None and part in (None, Part.ORPHANS):
        raise InvalidSettings("--days needs a part: notifications, events, scans or reports")
    if part is None:
        return [
            (name, age)
            for name in Part
            if (age := _setting(settings, name)) is None or age  # 0 days: kept for ever
        ]
    age = _setting(settings, part) if days is None else days
    if age == 0:
        variable = environment_name(f"{part}_retention_days")
        raise InvalidSettings(f"{part} are kept for ever ({variable} is 0); say --days N")
    return [(part, age)]


def _setting(settings: Settings, part: Part) -> int | None:
    return None if part is Part.ORPHANS else getattr(settings, f"{part}_retention_days")


def _clean(parts: Wiring, part: Part, days: int | None, limits: Limits, *, lost: bool) -> Cleaned:
    from tasks.cleanup import clean_notifications, clean_reports, clean_scans
    from tasks.orphans import clean_orphans

    if days is None:
        return clean_orphans(parts, limits, all_lost=lost)
    if part is Part.NOTIFICATIONS:
        return clean_notifications(parts, days, limits)
    if part is Part.REPORTS:
        return clean_reports(parts, days, limits)
    events = parts.settings.events_retention_days
    return clean_scans(
        parts,
        days if part is Part.SCANS else 0,
        days if part is Part.EVENTS else 0,
        limits,
        reduced_after=events if part is Part.SCANS else 0,
    )


def _row(part: Part, days: int | None, cleaned: Cleaned) -> dict[str, Any]:
    return {"part": part.value, "days": days, **cleaned.counts, "bytes": cleaned.size}


def _print(rows: list[dict[str, Any]], *, dry_run: bool) -> None:
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for row in rows:
        told = ", ".join(
            f"{number:,} {name}" for name, number in row.items() if name not in ("part", "days")
        )
        older = f" older than {row['days']} days" if row["days"] else ""
        console.print(f"{cell(row['part'])}{older}: {told}")
    if dry_run:
        console.print("Nothing was changed: --dry-run.")
