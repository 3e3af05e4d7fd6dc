"""``reports``: what the ledger says was made; and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import print_json, print_rows
from cli.settings import load_settings

Limit = Annotated[int, typer.Option(min=1, help="Rows at most, newest first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: for scripts.")]
Domain = Annotated[str | None, typer.Option(help="Only this domain.")]


def reports_command(
    limit: Limit = 50,
    scan: Annotated[str | None, typer.Option(help="Only this scan id.")] = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """List reports with their size, digest and place.

    Example: scanherald reports --domain example.org --json
    """
    from store.ledger import open_ledger
    from store.runs import list_reports

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        rows = list_reports(connection, limit=limit, scan_id=scan, domain=domain)
    print_rows(
        rows,
        (
            "domain",
            "format",
            "language",
            "status",
            "size_bytes",
            "score",
            "ready_at",
            "uri",
            "error",
        ),
        as_json=as_json,
        empty="No reports yet.",
    )


def print_published(entry_ids: dict[str, str], *, as_json: bool) -> None:
    """What ``publish`` answers."""
    if as_json:
        print_json(entry_ids)
        return
    print_rows(
        [{"file": name, "entry_id": entry_id} for name, entry_id in entry_ids.items()],
        ("file", "entry_id"),
        as_json=False,
        empty="Nothing published.",
    )
