"""``subscribers``: who is told what, and where.  Addresses are shown shortened."""

from __future__ import annotations

import secrets
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from cli.output import cell, print_json, print_rows
from cli.records import AsJson
from schemas.errors import InvalidEvent, NotFound
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Subscriber
from schemas.reports import Severity
from schemas.settings import Settings, load_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Who is told what, and where.",
    epilog="Example: scanherald subscribers add anna --email anna@example.org",
)


@app.command(
    epilog="Example: scanherald subscribers add anna --email anna@example.org "
    "--domain '*.example.org' --event compliance.violation"
)
def add(
    subscriber_id: Annotated[str, typer.Argument(help="A name of your choice.")],
    email: Annotated[str | None, typer.Option(help="E-mail address.")] = None,
    webhook: Annotated[str | None, typer.Option(help="Webhook URL.")] = None,
    webhook_secret: Annotated[
        str | None, typer.Option(help="whsec_… to sign webhooks with; made when left out.")
    ] = None,
    slack: Annotated[str | None, typer.Option(help="Slack incoming-webhook URL.")] = None,
    event: Annotated[
        list[EventType] | None,
        typer.Option(
            help="Event type; repeat. All by default, but operator.alert only by its name."
        ),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Domain glob; repeat. All by default.")
    ] = None,
    min_severity: Annotated[Severity, typer.Option(help="Least severity.")] = Severity.INFO,
    user: Annotated[
        str | None, typer.Option(help="User id of the platform: its owner's scans are always told.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a subscriber, or replace the one with this name."""
    from channels.signing import new_secret

    if not 1 <= len(subscriber_id) <= 128 or not subscriber_id.isprintable():
        raise InvalidEvent("a subscriber's name has 1 to 128 printable characters")
    secret = None
    if webhook:
        secret = webhook_secret or new_secret(secrets.token_bytes)
    addresses = [
        ChannelAddress(kind=kind, target=target, secret=own_secret)
        for kind, target, own_secret in (
            (ChannelKind.EMAIL, email, None),
            (ChannelKind.WEBHOOK, webhook, secret),
            (ChannelKind.SLACK, slack, None),
        )
        if target
    ]
    if not addresses:
        raise InvalidEvent("give at least one of --email, --webhook, --slack")
    settings = load_settings()
    for address in addresses:
        _check(address, settings)
    new = save(
        settings,
        Subscriber(
            subscriber_id=subscriber_id,
            user_id=user,
            channels=tuple(addresses),
            events=tuple(kind.value for kind in event or ()),
            domains=tuple(domain or ()),
            min_severity=min_severity,
        ),
    )
    shown = secret if webhook and not webhook_secret else None
    if as_json:
        print_json({"subscriber_id": subscriber_id, "new": new, "webhook_secret": shown})
        return
    console = Console()
    console.print(f"{'Added' if new else 'Replaced'} {cell(subscriber_id)}.")
    if shown:
        console.print(f"Webhook secret, shown this once: {shown}", soft_wrap=True)


@app.command("list", epilog="Example: scanherald subscribers list --json")
def list_command(as_json: AsJson = False) -> None:
    """List subscribers."""
    from store.subscribers import list_subscribers
    from tasks.wiring import wire

    parts = wire(load_settings())
    parts.ledger.migrate()
    with parts.ledger.read() as connection:
        found = list_subscribers(connection, parts.box)
    parts.close()
    print_rows(
        [
            {
                "subscriber_id": subscriber.subscriber_id,
                "user_id": subscriber.user_id,
                "channels": ", ".join(
                    f"{address.kind.value} {shortened(address)}" for address in subscriber.channels
                ),
                "events": ", ".join(subscriber.events) or "all",
                "domains": ", ".join(subscriber.domains) or "all",
                "min_severity": subscriber.min_severity.value,
                "paused": subscriber.paused,
            }
            for subscriber in found
        ],
        ("subscriber_id", "user_id", "channels", "events", "domains", "min_severity", "paused"),
        as_json=as_json,
        empty="No subscribers yet: scanherald subscribers add --help",
    )


@app.command(epilog="Example: scanherald subscribers remove anna")
def remove(subscriber_id: Annotated[str, typer.Argument(help="The subscriber's name.")]) -> None:
    """Remove a subscriber; what was sent stays on record."""
    from store.subscribers import remove_subscriber
    from tasks.wiring import wire

    parts = wire(load_settings())
    parts.ledger.migrate()
    with parts.ledger.write() as connection:
        removed = remove_subscriber(connection, subscriber_id)
    parts.close()
    if not removed:
        raise NotFound(f"no subscriber {subscriber_id!r}; see: scanherald subscribers list")
    Console().print(f"Removed {cell(subscriber_id)}.")


def _check(address: ChannelAddress, settings: Settings) -> None:
    """Refuse now what every delivery would be refused for.  Raises DeliveryRejected."""
    from channels.destinations import checked_url, parse_allow
    from channels.mail_message import mailbox
    from channels.signing import signing_key

    if address.kind is ChannelKind.EMAIL:
        mailbox(address.target, "--email")
        return
    checked_url(address.target, parse_allow(settings.http_allow))
    for secret in (address.secret or "").split():
        signing_key(secret)


def save(settings: Settings, subscriber: Subscriber) -> bool:
    """Write a subscriber into the ledger.  True if it is new."""
    from store.subscribers import save_subscriber
    from tasks.wiring import wire

    parts = wire(settings)
    parts.ledger.migrate()
    with parts.ledger.write() as connection:
        new = save_subscriber(connection, subscriber, parts.box, parts.clock())
    parts.close()
    return new


def shortened(address: ChannelAddress) -> str:
    """Enough of an address to recognise it by."""
    if address.kind is ChannelKind.EMAIL:
        name, _, host = address.target.rpartition("@")
        return f"{name[:2]}…@{host}"
    try:
        url = urlsplit(address.target)
        return f"{url.scheme}://{url.hostname}/…"
    except ValueError:
        return "…"
