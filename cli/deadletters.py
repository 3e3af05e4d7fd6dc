"""``dead-letters``: events that were set aside, and why."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.output import print_rows
from cli.records import AsJson, Limit
from schemas.errors import NotFound
from schemas.settings import load_settings

app = typer.Typer(invoke_without_command=True, help="Events that were set aside, with reasons.")


@app.callback(epilog="Example: scanherald dead-letters --json")
def list_command(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List dead letters, newest first; `show NUMBER` prints what was kept of one."""
    if context.invoked_subcommand is not None:
        return
    from store.events import list_dead_letters
    from store.ledger import open_ledger

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        rows = list_dead_letters(connection, limit)
    print_rows(
        [{"number": row["event_pk"], **row} for row in rows],
        ("number", "stream", "entry_id", "type", "payload_size", "recorded_at", "reason"),
        as_json=as_json,
        empty="No dead letters.",
    )


@app.command("show", epilog="Example: scanherald dead-letters show 17 | jq .")
def show(number: Annotated[int, typer.Argument(help="Number in the list.")]) -> None:
    """Print what was kept of one: the entry's fields as JSON, or the event's data."""
    from store.events import read_payload
    from store.ledger import open_ledger

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        payload = read_payload(connection, number)
    if payload is None:
        raise NotFound(f"no dead letter {number}, or nothing was kept of it")
    sys.stdout.buffer.write(payload + b"\n")
