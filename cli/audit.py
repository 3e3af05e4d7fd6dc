"""``audit``: whether everything is accounted for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.output import cell, print_json
from cli.records import AsJson
from cli.settings import load_settings
from schemas.audit import Audit
from schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from schemas.settings import Settings

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def audit_command(
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="24h, 7d, 90m, or a date or time (UTC). All by default."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Look at Redis, or at the ledger alone.")
    ] = True,
    artifacts: Annotated[
        bool,
        typer.Option("--artifacts/--no-artifacts", help="Read every artifact, or believe it."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Account for every entry, event, run, report and delivery; exit status 1 names the gaps.

    What is in flight is counted and is no gap, so a running service can be audited.
    """
    from tasks.wiring import utc_now

    settings = load_settings()
    now = utc_now()
    moment = None if since is None else parse_since(since, now)
    with _progress() as progress:
        audit = _audit(settings, now, moment, stream=stream, artifacts=artifacts, progress=progress)
    if as_json:
        print_json(
            {
                "status": audit.status,
                "since": moment,
                **audit.sums,
                "gaps": audit.gaps,
                "gaps_total": audit.gaps_total,
            }
        )
    else:
        _print(audit)
    if audit.gaps_total:
        raise typer.Exit(1)


def parse_since(text: str, now: datetime, option: str = "--since") -> datetime:
    """A duration before ``now``, or an ISO date or time.  Raises InvalidSettings."""
    duration = re.fullmatch(r"([0-9]+)([smhdw])", text.strip())
    try:
        if duration:
            return now - timedelta(**{UNITS[duration[2]]: int(duration[1])})
        moment = datetime.fromisoformat(text.strip())
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidSettings(
            f"{option} {text!r} is neither a duration, such as 90m, 24h or 7d, "
            "nor a date or time, such as 2026-01-31 or 2026-01-31T12:00"
        ) from error
    if moment > now:
        raise InvalidSettings(f"{option} {text!r} is in the future; it is {now:%Y-%m-%d %H:%M} UTC")
    return moment


def _audit(
    settings: Settings,
    now: datetime,
    since: datetime | None,
    *,
    stream: bool,
    artifacts: bool,
    progress: Callable[[str, int], None],
) -> Audit:
    from listener.audit import audit_streams
    from store.artifacts import ArtifactStore
    from store.audit import LedgerAudit
    from store.ledger import open_ledger

    audit = Audit()
    # Late is not lost: after an outage, or behind a full queue, the sweep catches up bit by bit.
    grace = timedelta(seconds=2 * settings.sweep_interval_s + settings.run_deadline_s)
    with open_ledger(settings.ledger_url) as ledger:
        if stream:
            audit_streams(
                settings.redis_url,
                settings.streams,
                settings.consumer_group,
                ledger,
                audit,
                since=since,
                progress=progress,
            )
        told = LedgerAudit(
            ledger, audit, since=since, overdue_before=now - grace, progress=progress
        )
        told.events()
        told.runs()
        told.reports(ArtifactStore(settings.artifact_store_url) if artifacts else None)
        told.deliveries()
    return audit


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """One changing line on a terminal's standard error; nothing anywhere else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _part, _done: None
        return
    with console.status("audit") as line:
        yield lambda part, done: line.update(f"audit: {part} {done:,}")


def _print(audit: Audit) -> None:
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for sums in audit.sums.values():
        whole, *shares = (f"{number:,} {name.replace('_', ' ')}" for name, number in sums.items())
        told = [share for share in shares if not share.startswith("0 ")]
        console.print(f"{whole}: {', '.join(told)}" if told else whole)
    if not audit.gaps_total:
        console.print("[green]clean[/green]")
        return
    console.print(f"\n[red]{audit.gaps_total:,} gap{'' if audit.gaps_total == 1 else 's'}[/red]")
    for gap in audit.gaps:
        what = ", ".join(f"{name} {cell(value)}" for name, value in gap.what.items())
        console.print(f"\n[bold]{gap.kind}[/bold]: {what}\n  {cell(gap.why)}\n  {cell(gap.do)}")
    if audit.gaps_total > len(audit.gaps):
        console.print(f"\n… and {audit.gaps_total - len(audit.gaps):,} more")
