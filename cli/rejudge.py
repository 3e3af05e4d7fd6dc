"""``rejudge``: what another rule pack makes of the scans that are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.audit import parse_since
from cli.records import AsJson
from cli.rejudged import Collected, print_document, print_tables
from cli.settings import load_settings
from schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from compliance.rules import RulePack
    from schemas.settings import Settings
    from store.recorded_scans import Selection

INTERRUPTED = 130
"""The exit status of what Ctrl-C ended, as shells have it."""


def rejudge_command(
    pack: Annotated[str, typer.Option(help="Its id for the newest version, or id-version.")],
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Scans from then on: 90d, or a date (UTC).")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Scans up to then.")] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only domains like this, such as *.de.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all-scans", help="Every scan, not only each domain's latest.")
    ] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Each changed scan: by law, and by site beside it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge recorded scans by another rule pack; show what changes by law, not by site.

    The same bytes are judged twice: by the pack that judged them, and by PACK. With --details also
    what changed by the site since the scan before, both judged by PACK.

    Nothing is written and nobody is told; reports stay as they are. To have reports by PACK, set
    SCANHERALD_RULE_PACK=PACK, restart listeners and workers, and scan again (or publish a recorded
    scan again as an event with another id).
    """
    from compliance.rules import load_pack
    from store.recorded_scans import Selection
    from tasks.wiring import utc_now

    settings = load_settings()
    judge = load_pack(pack, settings.rule_packs_dir)
    now = utc_now()
    selection = Selection(
        _moment(since, now, "--since"), _moment(until, now, "--until"), domain, every
    )
    if selection.since and selection.until and selection.since > selection.until:
        raise InvalidSettings(f"--since {since!r} is after --until {until!r}")
    collected = Collected(judge.name, selection)
    try:
        _collect(settings, judge, selection, collected, by_site=details)
        if as_json:
            print_document(collected)
        else:
            print_tables(collected, details=details)
    except KeyboardInterrupt:
        Console(stderr=True).print(
            f"stopped; scans looked at: {collected.looked_at:,}. This is not the whole answer"
        )
        raise typer.Exit(INTERRUPTED) from None
    finally:
        collected.close()


def _moment(text: str | None, now: datetime, option: str) -> datetime | None:
    return None if text is None else parse_since(text, now, option)


def _collect(
    settings: Settings,
    pack: RulePack,
    selection: Selection,
    collected: Collected,
    *,
    by_site: bool,
) -> None:
    from store.ledger import open_ledger
    from store.recorded_scans import count_scans
    from tasks.rejudge import Rejudged, rejudge

    with open_ledger(settings.ledger_url) as ledger, _progress() as progress:
        total = count_scans(ledger, selection)
        for item in rejudge(ledger, settings, pack, selection, by_site=by_site):
            if isinstance(item, Rejudged):
                collected.add(item)
            else:
                collected.skip(item)
            progress(collected.looked_at, total)
    collected.end()


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None]]:
    """One changing line on a terminal's standard error; nothing anywhere else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    with console.status("rejudge") as line:

        def show(done: int, total: int | None) -> None:
            line.update(f"rejudge: {done:,} scans" + (f" of {total:,}" if total else ""))

        yield show
