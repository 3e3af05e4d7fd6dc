"""``runs``: the work that each event asked for; its cancelling, and another life for dead ones."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.output import cell, confirm, print_json, print_rows
from cli.records import AsJson, Domain, Limit, Yes
from cli.settings import load_settings
from schemas.errors import InvalidSettings, NotFound
from schemas.runs import RunState

if TYPE_CHECKING:
    from tasks.cancelling import Cancelling
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
    """List runs, newest first; `cancel` ends some, `retry` takes dead ones up again."""
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
    run_ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of dead or cancelled runs.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take dead runs up again, after whatever killed them is mended; cancelled ones by their ids.

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
            f"neither dead nor cancelled: {', '.join(map(cell, left))}; see: scanherald runs "
            "--state dead. What never became a run is in: scanherald dead-letters"
        )


@app.command("cancel", epilog="Example: scanherald runs cancel --domain '*.test' --reason 'a test'")
def cancel_command(
    run_ids: Annotated[list[str] | None, typer.Argument(help="Ids of runs.")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="All unfinished runs of these domains; repeatable."),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="A replay: it starts no more, and what is unfinished ends."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why: it stays on record.")] = "by hand",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End runs before their time: no reports, no messages, and the sweep leaves them alone.

    Of a run that is done, what is not sent yet is suppressed.  `retry` takes a
    cancelled run up again.
    """
    from tasks import wiring
    from tasks.cancelling import cancel, cancel_replay
    from tasks.logs import configure_logs

    if sum(map(bool, (run_ids, domain, replay))) != 1:
        raise InvalidSettings(
            "name runs, or give --domain for all unfinished runs of a domain, or --replay"
        )
    settings = load_settings()
    configure_logs(settings.model_copy(update={"log_level": "ERROR"}))  # what is said below
    wiring.use(settings)
    parts = wiring.current()
    parts.ledger.migrate()
    try:
        chosen: list[str] = []
        if replay:
            confirm(f"Cancel replay {replay} and whatever of it is unfinished?", yes=yes)
            outcome = cancel_replay(parts, replay, reason)
        else:
            chosen = run_ids or _unfinished(parts, domain or [])
            if chosen:
                number = f"{len(chosen)} run{'' if len(chosen) == 1 else 's'}"
                confirm(f"Cancel {number} and whatever of them is unsent?", yes=yes)
            outcome = cancel(parts, chosen, reason)
    finally:
        parts.close()
    unknown = [run_id for run_id in chosen if run_id not in outcome.known]
    if as_json:
        print_json({**outcome.figures(), "unknown": unknown})
    else:
        _tell_cancelled(outcome)
    if unknown:
        raise NotFound(f"no such runs: {', '.join(map(cell, unknown))}; see: scanherald runs")


def _tell_cancelled(outcome: Cancelling) -> None:
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(
        f"{len(outcome.cancelled)} runs cancelled, {outcome.suppressed} deliveries suppressed."
    )
    if outcome.in_hand:
        console.print(
            f"{outcome.in_hand} deliveries are with a worker or part of a digest, and go on; "
            "one that fails can be cancelled after its try."
        )
    if outcome.nothing_left:
        console.print(f"{len(outcome.nothing_left)} runs had ended with nothing left to cancel.")
    if outcome.not_revoked:
        console.print(
            f"Their tasks could not be revoked ({cell(outcome.not_revoked)}); "
            "whichever starts finds its run settled."
        )


def _unfinished(parts: Wiring, globs: list[str]) -> list[str]:
    """Runs of these domains that have something left to cancel, read page by page."""
    from store.cancelling import list_cancellable

    found: list[str] = []
    after = None
    while True:
        with parts.ledger.read() as connection:
            page = list_cancellable(connection, after=after, limit=BATCH)
        found += [
            row["run_id"]
            for row in page
            if any(fnmatchcase((row["subject"] or "").lower(), glob.lower()) for glob in globs)
        ]
        if len(page) < BATCH:
            return found
        after = (page[-1]["created_at"], page[-1]["run_id"])


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
