"""``runs``: the work that each event asked for; and another life for dead ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.output import cell, print_json, print_rows
from cli.records import AsJson, Domain, Limit
from schemas.errors import InvalidSettings, NotFound
from schemas.runs import RunState
from schemas.settings import load_settings

if TYPE_CHECKING:
    from tasks.wiring import Wiring

BATCH = 200

app = typer.Typer(
    invoke_without_command=True, help="The work that each event asked for, and how it went."
)


@app.callback(epilog="Example: scanherald runs --state dead --json")
def list_command(
    context: typer.Context,
    limit: Limit = 50,
    state: Annotated[RunState | None, typer.Option(help="Only runs in this state.")] = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first; `retry` takes dead ones up again."""
    if context.invoked_subcommand is not None:
        return
    from store.ledger import open_ledger
    from store.runs import list_runs

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        rows = list_runs(
            connection, limit=limit, state=state.value if state else None, domain=domain
        )
    print_rows(
        rows,
        ("run_id", "type", "subject", "state", "attempt", "score", "created_at", "last_error"),
        as_json=as_json,
        empty="No runs yet. Publish a scan: scanherald publish scan.json",
    )


@app.command("retry", epilog="Example: scanherald runs retry --dead")
def retry_command(
    run_ids: Annotated[list[str] | None, typer.Argument(help="Ids of dead runs.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take dead runs up again, after whatever killed them is mended.

    Nobody is told twice of what was told already.
    """
    from tasks.wiring import wire

    if bool(run_ids) == dead:
        raise InvalidSettings("name dead runs, or give --dead for all of them")
    parts = wire(load_settings())
    parts.ledger.migrate()
    try:
        revived: list[str] = []
        for batch in [run_ids] if run_ids else _dead(parts):
            revived += _retry(parts, batch)
    finally:
        parts.close()
    left = [run_id for run_id in run_ids or () if run_id not in revived]
    if as_json:
        print_json({"revived": revived, "not_dead": left})
    else:
        Console().print(f"{len(revived)} runs taken up again; the next sweep starts them.")
    if left:
        raise NotFound(
            f"not among the dead runs: {', '.join(map(cell, left))}; see: scanherald runs "
            "--state dead. What never became a run is in: scanherald dead-letters"
        )


def _dead(parts: Wiring) -> Iterator[list[str]]:
    """All runs that are dead by now, batch by batch; not those that die again meanwhile."""
    from store.runs import dead_runs

    by = parts.clock()
    while True:
        with parts.ledger.read() as connection:
            batch = dead_runs(connection, by, BATCH)
        if not batch:
            return
        yield batch


def _retry(parts: Wiring, run_ids: list[str]) -> list[str]:
    from store.runs import revive

    with parts.ledger.write() as connection:
        return revive(connection, run_ids, parts.clock())
