"""``dead-letters``: entries that were set aside, and why; tried again, or given up with a trace."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.output import cell, print_json, print_rows
from cli.records import AsJson, Limit
from cli.replay import DryRunOption, FormatsOption, OnlyOption, YesOption, make_request
from cli.settings import load_settings
from schemas.errors import InvalidSettings, NotFound
from schemas.replays import ReplaySource, Selection

app = typer.Typer(
    invoke_without_command=True,
    help="Entries that never became events, with reasons. An event whose run is dead is listed "
    "too, and taken up again by: scanherald runs retry.",
)

Numbers = Annotated[list[int] | None, typer.Argument(help="Numbers in the list.")]


@app.callback(epilog="Example: scanherald dead-letters --json")
def bare_command(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List dead letters, newest first, as `list` does."""
    if context.invoked_subcommand is None:
        _list(limit, as_json=as_json)


@app.command("list", epilog="Example: scanherald dead-letters list --limit 10")
def list_command(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List dead letters, newest first; `show NUMBER` prints what was kept of one.

    An `entry` was set aside before it became an event. Of a `run` the event is recorded, and its
    work was given up: see scanherald runs --state dead.
    """
    _list(limit, as_json=as_json)


@app.command("show", epilog="Example: scanherald dead-letters show 17 | jq .")
def show_command(number: Annotated[int, typer.Argument(help="Number in the list.")]) -> None:
    """Print what was kept of one: the entry's fields as JSON, or the event's data."""
    from store.events import read_payload
    from store.ledger import open_ledger
    from store.letters import check_dead

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        check_dead(connection, number)
        payload = read_payload(connection, number)
    if payload is None:
        raise NotFound(f"nothing was kept of dead letter {number}")
    sys.stdout.buffer.write(payload + b"\n")


@app.command("replay", epilog="Example: scanherald dead-letters replay 17 18")
def replay_command(
    numbers: Numbers = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="All letters, but for those that killed the listener."),
    ] = False,
    only: OnlyOption = None,
    formats: FormatsOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Decode entries again, after what was wrong is mended, and run what is sound now.

    A letter that is sound becomes an event and is a letter no more; one that is still bad stays,
    with its new reason. Nobody is told unless --only reports,notify says so.
    """
    from cli.replaying import dry_run_replay, run_replay

    if bool(numbers) == every:
        raise InvalidSettings("name letters by their numbers, or give --all")
    settings = load_settings()
    request = make_request(
        settings,
        ReplaySource.DEAD_LETTERS,
        Selection(numbers=tuple(numbers or ())),
        only=only,
        formats=formats,
    )
    if dry_run:
        dry_run_replay(settings, request, as_json=as_json)
    else:
        run_replay(settings, request, yes=yes, as_json=as_json)


@app.command("discard", epilog="Example: scanherald dead-letters discard 17 --reason 'a test'")
def discard_command(
    numbers: Annotated[list[int], typer.Argument(help="Numbers in the list.")],
    reason: Annotated[str, typer.Option(help="Why; it stays on record.")],
    yes: Annotated[bool, typer.Option("--yes", help="Without asking first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give entries up for good: what was kept of them goes, that and why they were stays.

    All of them or, if one of the numbers is no dead letter, none.
    """
    from store.ledger import open_ledger
    from store.letters import check_letters, discard_letter
    from tasks.wiring import utc_now

    if not reason.strip():
        raise InvalidSettings("--reason must say why")
    wanted = list(dict.fromkeys(numbers))
    with open_ledger(load_settings().ledger_url) as ledger:
        with ledger.read() as connection:
            check_letters(connection, wanted)
        if not yes:
            _ask(len(wanted))
        with ledger.write() as connection:
            for number in wanted:
                discard_letter(connection, number, reason.strip(), utc_now())
    if as_json:
        print_json({"discarded": wanted, "reason": reason.strip()})
    else:
        Console(emoji=False, highlight=False).print(
            f"{len(wanted)} discarded: {', '.join(map(cell, wanted))}"
        )


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise InvalidSettings("discarding cannot be undone; give --yes where nobody can be asked")
    typer.confirm(f"{count} dead letters are discarded for good. Go on?", abort=True)


def _list(limit: int, *, as_json: bool) -> None:
    from store.events import list_dead_letters
    from store.ledger import open_ledger

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        rows = list_dead_letters(connection, limit)
    print_rows(
        [_row(dict(row)) for row in rows],
        ("number", "what", "stream", "entry_id", "type", "payload_size", "recorded_at", "reason"),
        as_json=as_json,
        empty="No dead letters.",
    )


def _row(row: dict[str, Any]) -> dict[str, Any]:
    from store.events import DEAD_SOURCE

    what = "entry" if row["source"].startswith(DEAD_SOURCE) else "run"
    return {"number": row["event_pk"], "what": what, **row}
