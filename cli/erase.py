"""``erase``: one person's or one domain's records and artifacts, and the receipt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console

from cli.cleanup import progress_line
from cli.output import cell, print_json
from cli.records import AsJson
from cli.settings import load_settings
from schemas.errors import InvalidSettings, PermanentError

if TYPE_CHECKING:
    from tasks.erase import Receipt
    from tasks.wiring import Wiring

REMAINS = (
    "Not reached: entries still in the stream, task results in Redis, log files, backups, "
    "messages that were delivered; see docs/operations.md."
)


def erase_command(
    subscriber: Annotated[str | None, typer.Option(help="A subscriber's name.")] = None,
    domain: Annotated[
        str | None, typer.Option(help="A domain, named exactly; its subdomains are others.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    listing: Annotated[
        Path | None,
        typer.Option("--list", help="New file for the list whose SHA-256 the receipt gives."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Erase all that is kept of a subscriber or of a domain, and print a receipt.

    A domain: events with their data, scans, runs, reports and artifacts, news,
    deliveries, violations. Its unfinished work is cancelled first. Each event's
    bare identity stays, so that an entry read again is a repeat. A subscriber:
    addresses and wishes, deliveries of any state, attempts, digests. It cannot be undone.
    """
    from tasks.logs import configure_logs
    from tasks.wiring import wire

    if (subscriber is None) == (domain is None):
        raise InvalidSettings("name what to erase: --subscriber ID or --domain D")
    settings = load_settings()
    configure_logs(settings.model_copy(update={"log_level": "ERROR"}))  # the receipt says the rest
    parts = wire(settings)
    parts.ledger.migrate()
    try:
        whom = f"subscriber {subscriber}" if domain is None else f"domain {domain}"
        if not (dry_run or yes):
            _ask(parts, whom, subscriber, domain)
        receipt = _erase(parts, subscriber, domain, listing, dry_run=dry_run)
    finally:
        parts.close()
    if as_json:
        print_json(_document(receipt, subscriber, domain))
    else:
        _print(receipt, whom)


def _erase(
    parts: Wiring,
    subscriber: str | None,
    domain: str | None,
    listing: Path | None,
    *,
    dry_run: bool,
) -> Receipt:
    from tasks.erase import Receipt, erase_domain, erase_subscriber

    with _open(listing) as file, progress_line("erase") as progress:
        receipt = Receipt(dry_run, parts.clock(), file, progress)
        if domain is not None:
            erase_domain(parts, domain, receipt)
        elif subscriber is not None:
            erase_subscriber(parts, subscriber, receipt)
    return receipt


def _ask(parts: Wiring, whom: str, subscriber: str | None, domain: str | None) -> None:
    """Show what would go, and go on only at a yes."""
    if not sys.stdin.isatty():
        raise InvalidSettings("nobody is there to be asked: say --yes, or --dry-run")
    _print(_erase(parts, subscriber, domain, None, dry_run=True), whom)
    typer.confirm("Erase it? It cannot be undone", abort=True)


@contextmanager
def _open(listing: Path | None) -> Iterator[TextIO | None]:
    if listing is None:
        yield None
        return
    try:
        file = listing.open("x", encoding="utf-8", newline="")
    except OSError as error:
        raise PermanentError(f"cannot write {listing}: {error.strerror}") from error
    with file:
        yield file


def _document(receipt: Receipt, subscriber: str | None, domain: str | None) -> dict[str, object]:
    return {
        "subscriber": subscriber,
        "domain": domain,
        "dry_run": receipt.dry_run,
        "began_at": receipt.began_at,
        "ended_at": receipt.ended_at,
        "cancelled_runs": receipt.cancelled,
        "removed": receipt.counts,
        "artifact_bytes": receipt.artifact_bytes,
        "sha256": receipt.sha256,
        "remains": REMAINS,
    }


def _print(receipt: Receipt, whom: str) -> None:
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    verb = "Would erase" if receipt.dry_run else "Erased"
    console.print(f"[bold]{verb}: {cell(whom)}[/bold]")
    for table, number in receipt.counts.items():
        if number:
            size = f" ({receipt.artifact_bytes:,} bytes)" if table == "artifacts" else ""
            console.print(f"{number:>10,} {table.replace('_', ' ')}{size}")
    if not any(receipt.counts.values()):
        console.print("Nothing of it is kept.")
    if receipt.cancelled:
        console.print(f"Cancelled first: {receipt.cancelled:,} unfinished runs")
    console.print(f"Began {cell(receipt.began_at)}, ended {cell(receipt.ended_at)} UTC")
    console.print(f"SHA-256 of the list: {receipt.sha256}")
    console.print(REMAINS)
