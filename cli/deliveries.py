"""``deliveries``: who was sent what, what the other side said; another start for what failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cli.audit import parse_since
from cli.output import cell, print_json, print_rows
from cli.records import AsJson, Domain, Limit
from cli.settings import load_settings
from schemas.errors import InvalidSettings, NotFound
from schemas.notifications import ChannelKind
from schemas.runs import DeliveryState

if TYPE_CHECKING:
    from tasks.wiring import Wiring

BATCH = 200

app = typer.Typer(
    invoke_without_command=True,
    help="Deliveries: one message, one subscriber, one channel; and how they went.",
)
Subscriber = Annotated[str | None, typer.Option(help="Only this subscriber's.")]


@app.command("list", epilog="Example: scanherald deliveries list --failed --domain example.org")
@app.callback(epilog="Example: scanherald deliveries --failed --domain example.org")
def list_command(
    context: typer.Context,
    limit: Limit = 50,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what `retry --failed` would take up again.")
    ] = False,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
    subscriber: Subscriber = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first; `show` says more of one, `retry` takes up failed ones."""
    if context.invoked_subcommand is not None:
        return
    from store.deliveries import list_deliveries
    from store.ledger import open_ledger
    from store.undelivered import undelivered

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        rows = list_deliveries(
            connection,
            limit=limit,
            state=state.value if state else None,
            subscriber_id=subscriber,
            domain=domain,
            only=undelivered() if failed else None,
        )
    columns = ["delivery_id", "subscriber_id", "channel", "type", "domain", "state", "tries"]
    print_rows(
        rows,
        (*columns, "settled_at", "reason"),
        as_json=as_json,
        empty="No such deliveries."
        if failed or state or subscriber or domain
        else "No deliveries yet. Add someone to tell: scanherald subscribers add --help",
    )


@app.command("show", epilog="Example: scanherald deliveries show 3176b0cd-199b-5ec6-b280-ec5c6e92")
def show_command(
    delivery_id: Annotated[str, typer.Argument(help="A delivery's id.")], as_json: AsJson = False
) -> None:
    """Show one delivery: every try with what the other side answered, and its address's health."""
    from store.deliveries import find_listed
    from store.endpoints import find_endpoint
    from store.ledger import open_ledger
    from store.tries import list_attempts

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        row = find_listed(connection, delivery_id)
        if row is None:
            raise NotFound(f"no delivery {delivery_id!r}; see: scanherald deliveries")
        tries = list_attempts(connection, delivery_id)
        endpoint = find_endpoint(connection, row["subscriber_id"], ChannelKind(row["channel"]))
    health = None if endpoint is None else dict(endpoint)
    if as_json:
        print_json({**row, "endpoint": health, "attempts": [dict(item) for item in tries]})
        return
    console = Console(emoji=False)
    for name, value in row.items():
        if value is not None:
            console.print(f"{name.replace('_', ' '):<14} {cell(value)}", soft_wrap=True)
    if health and health["disabled_at"]:
        console.print(f"{'address':<14} disabled: {cell(health['reason'])}", soft_wrap=True)
    elif health and health["failing_since"]:
        console.print(f"{'address':<14} failing since {cell(health['failing_since'])}")
    print_rows(
        [_rounded(item) for item in tries],
        (
            "number",
            "started_at",
            "duration_ms",
            "outcome",
            "status_code",
            "receipt",
            "error",
        ),
        as_json=False,
        empty="Not tried yet.",
    )


@app.command("retry", epilog="Example: scanherald deliveries retry --failed --since 2d")
def retry_command(
    delivery_ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of failed or suppressed deliveries.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that failed or met a disabled address.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="With --failed: planned since, such as 24h or 2026-01-31.")
    ] = None,
    subscriber: Subscriber = None,
    as_json: AsJson = False,
) -> None:
    """Try failed deliveries again, all tries anew, and enable their addresses.

    What was sent is never sent again; all keep to the pace.
    """
    from tasks.wiring import wire

    if bool(delivery_ids) == failed:
        raise InvalidSettings("name deliveries, or give --failed for all of them")
    if delivery_ids and (since or subscriber):
        raise InvalidSettings("--since and --subscriber go with --failed")
    parts = wire(load_settings())
    parts.ledger.migrate()
    try:
        revived: list[str] = []
        for batch in [delivery_ids] if delivery_ids else _failed(parts, since, subscriber):
            revived += _retry(parts, batch)
    finally:
        parts.close()
    left = [name for name in delivery_ids or () if name not in revived]
    if as_json:
        print_json({"revived": revived, "left": left})
    else:
        Console().print(f"{len(revived)} deliveries are due again; the next sweep starts them.")
    if left:
        raise NotFound(
            f"neither failed nor suppressed, or told of by a digest: "
            f"{', '.join(map(cell, left))}; see: scanherald deliveries show"
        )


@app.command("enable", epilog="Example: scanherald deliveries enable anna --channel webhook")
def enable_command(
    subscriber_id: Annotated[str, typer.Argument(help="The subscriber's name.")],
    channel: Annotated[ChannelKind, typer.Option(help="Whose address of theirs.")],
) -> None:
    """Use a disabled address again.  What it missed: `deliveries retry --failed`."""
    from store.endpoints import enable_endpoint
    from store.ledger import open_ledger

    with open_ledger(load_settings().ledger_url) as ledger, ledger.write() as connection:
        enabled = enable_endpoint(connection, subscriber_id, channel)
    if not enabled:
        raise NotFound(
            f"the {channel} address of {subscriber_id!r} is not disabled; "
            "see: scanherald subscribers list"
        )
    Console().print(f"The {channel} address of {cell(subscriber_id)} is used again.")


def _failed(parts: Wiring, since: str | None, subscriber: str | None) -> Iterator[list[str]]:
    """All that is undelivered by now, batch by batch; not what fails again meanwhile."""
    from store.undelivered import list_undelivered

    by = parts.clock()
    begin = None if since is None else parse_since(since, by)
    while True:
        with parts.ledger.read() as connection:
            batch = list_undelivered(
                connection, by=by, since=begin, subscriber_id=subscriber, limit=BATCH
            )
        if not batch:
            return
        yield batch


def _retry(parts: Wiring, delivery_ids: list[str]) -> list[str]:
    from store.undelivered import revive_deliveries

    with parts.ledger.write() as connection:
        return revive_deliveries(connection, delivery_ids, parts.clock())


def _rounded(row: Any) -> dict[str, Any]:
    return {**row, "duration_ms": round(row["duration_ms"], 1)}
