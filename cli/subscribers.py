"""``subscribers``: who is told what, where and when.  Addresses are shown shortened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console

from cli.addresses import shortened
from cli.output import cell, print_json, print_rows
from cli.records import AsJson
from cli.settings import load_settings
from cli.wishes import ALL, Granted, Wishes, grant
from schemas.errors import InvalidSettings, NotFound
from schemas.notifications import (
    ChannelKind,
    Digest,
    DigestRhythm,
    HeldFor,
    QuietHours,
    Subscriber,
)

if TYPE_CHECKING:
    from schemas.settings import Settings
    from tasks.wiring import Wiring

app = typer.Typer(
    no_args_is_help=True,
    help="Who is told what, where and when.",
    epilog="Example: scanherald subscribers add anna --email anna@example.org",
)

Name = Annotated[str, typer.Argument(help="The subscriber's name.")]
Email = Annotated[str | None, typer.Option(help="E-mail address.")]
Webhook = Annotated[str | None, typer.Option(help="Webhook URL.")]
WebhookSecret = Annotated[
    str | None,
    typer.Option(
        help="whsec_… to sign webhooks with, in place of the one there is; made when left out. "
        "Two, separated by a space, while one replaces the other; see rotate-secret."
    ),
]
Slack = Annotated[str | None, typer.Option(help="Slack incoming-webhook URL.")]
Apprise = Annotated[
    str | None, typer.Option(help="Apprise URL, such as discord://id/token, for other services.")
]
Event = Annotated[
    list[str] | None,
    typer.Option(help="Event type; repeat. All by default, but operator.alert only by its name."),
]
Domain = Annotated[list[str] | None, typer.Option(help="Domain glob; repeat. All by default.")]
MinSeverity = Annotated[
    str | None, typer.Option(help="Least severity: info, low, medium or high. [default: info]")
]
User = Annotated[
    str | None, typer.Option(help="User id of the platform: its owner's scans are always told.")
]
QuietSpan = Annotated[
    str | None,
    typer.Option(
        "--quiet-hours",
        metavar="HH:MM-HH:MM",
        help="When messages wait, such as 22:00-06:00; they are sent when it is over.",
    ),
]
TimeZone = Annotated[
    str | None,
    typer.Option(help="Whose clock counts for quiet hours and digests, such as Europe/Berlin."),
]
Passing = Annotated[
    str | None,
    typer.Option(help="Least severity that is told in quiet hours too, or none. [default: high]"),
]
Rhythm = Annotated[
    str | None,
    typer.Option("--digest", help="immediate, or collected: hourly or daily. [default: immediate]"),
]
DigestAt = Annotated[
    str | None,
    typer.Option(metavar="HH:MM", help="When the daily digest goes out. [default: 08:00]"),
]
DigestBelow = Annotated[
    str | None,
    typer.Option(help="Collect only what is less severe than this. [default: high]"),
]
Language = Annotated[
    str | None, typer.Option(help="Language of messages, such as de. [default: the settings']")
]
Attach = Annotated[
    list[str] | None,
    typer.Option(help="Format that e-mails carry along, such as pdf; repeat. Links by default."),
]


@app.command(
    epilog="Example: scanherald subscribers add anna --email anna@example.org "
    "--domain '*.example.org' --quiet-hours 22:00-06:00 --time-zone Europe/Berlin --digest daily"
)
def add(
    subscriber_id: Annotated[str, typer.Argument(help="A name of your choice.")],
    email: Email = None,
    webhook: Webhook = None,
    webhook_secret: WebhookSecret = None,
    slack: Slack = None,
    apprise: Apprise = None,
    event: Event = None,
    domain: Domain = None,
    min_severity: MinSeverity = None,
    user: User = None,
    quiet_hours: QuietSpan = None,
    time_zone: TimeZone = None,
    passing: Passing = None,
    digest: Rhythm = None,
    digest_at: DigestAt = None,
    digest_below: DigestBelow = None,
    language: Language = None,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Add a subscriber, or replace the one with this name; see also: edit."""
    wishes, settings = _wishes(locals()), load_settings()
    granted = grant(wishes, Subscriber(subscriber_id=subscriber_id), settings)
    new = save(settings, granted.subscriber)
    _print_saved("Added" if new else "Replaced", new, granted, as_json=as_json)


@app.command(
    epilog="Example: scanherald subscribers edit anna --quiet-hours none --event all --attach pdf"
)
def edit(
    subscriber_id: Name,
    email: Email = None,
    webhook: Webhook = None,
    webhook_secret: WebhookSecret = None,
    slack: Slack = None,
    apprise: Apprise = None,
    event: Event = None,
    domain: Domain = None,
    min_severity: MinSeverity = None,
    user: User = None,
    quiet_hours: QuietSpan = None,
    time_zone: TimeZone = None,
    passing: Passing = None,
    digest: Rhythm = None,
    digest_at: DigestAt = None,
    digest_below: DigestBelow = None,
    language: Language = None,
    attach: Attach = None,
    as_json: AsJson = False,
) -> None:
    """Change what is named, and nothing else.

    none takes an address, a user, quiet hours, a language or attachments away;
    all asks for every event or domain. What is held already waits until the time
    it was held for, and is looked at again then.
    """
    wishes = _wishes(locals())
    if wishes.nothing:
        raise InvalidSettings("name what to change; see: scanherald subscribers edit --help")
    with _opened() as parts:
        granted = grant(wishes, _found(parts, subscriber_id), parts.settings)
        _save(parts, granted.subscriber)
    _print_saved("Changed", False, granted, as_json=as_json)


@app.command("rotate-secret", epilog="Example: scanherald subscribers rotate-secret anna --finish")
def rotate_secret(
    subscriber_id: Name,
    finish: Annotated[
        bool, typer.Option("--finish", help="The receiver knows the new one: drop the old one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new webhook secret; the old one stays valid beside it until --finish.

    Meanwhile every message carries both signatures, so a receiver accepts it
    before and after it has learned the new secret.
    """
    import secrets

    from cli.secret_rotation import begin_rotation, finish_rotation, secrets_of

    with _opened() as parts:
        before, made = _found(parts, subscriber_id), None
        if finish:
            after = finish_rotation(before)
        else:
            after, made = begin_rotation(before, secrets.token_bytes)
        _save(parts, after)
    valid = len(secrets_of(after))
    if as_json:
        print_json({"subscriber_id": subscriber_id, "webhook_secret": made, "valid_secrets": valid})
        return
    console = Console(soft_wrap=True)
    if made is None:
        console.print(f"The new secret of {cell(subscriber_id)} alone is valid now.")
        return
    console.print(f"New webhook secret, shown this once: {made}")
    console.print(
        "The old one is valid beside it, until: "
        f"scanherald subscribers rotate-secret {cell(subscriber_id)} --finish"
    )


@app.command(epilog="Example: scanherald subscribers pause anna")
def pause(subscriber_id: Name) -> None:
    """Tell a subscriber nothing until resumed: it is suppressed, not kept for later."""
    _set_paused(subscriber_id, paused=True)
    Console().print(f"Paused {cell(subscriber_id)}.")


@app.command(epilog="Example: scanherald subscribers resume anna")
def resume(subscriber_id: Name) -> None:
    """Tell a subscriber again, from the next event on."""
    _set_paused(subscriber_id, paused=False)
    Console().print(f"Resumed {cell(subscriber_id)}.")


@app.command("list", epilog="Example: scanherald subscribers list --json")
def list_command(as_json: AsJson = False) -> None:
    """List subscribers."""
    from store.endpoints import disabled_endpoints
    from store.subscribers import list_subscribers

    with _opened() as parts, parts.ledger.read() as connection:
        found = list_subscribers(connection, parts.box)
        disabled = disabled_endpoints(connection)
    columns = (
        *("subscriber_id", "user_id", "channels", "events", "domains", "min_severity"),
        *("quiet_hours", "digest", "language", "attach", "paused", "disabled"),
    )
    rows = [_row(subscriber, disabled) for subscriber in found]
    unset = {"user_id": None, "quiet_hours": None, "language": None, "attach": "", "disabled": ""}
    shown = [
        column
        for column in columns
        if column not in unset or any(row[column] != unset[column] for row in rows)
    ]
    print_rows(
        rows, shown, as_json=as_json, empty="No subscribers yet: scanherald subscribers add --help"
    )


@app.command(epilog="Example: scanherald subscribers show anna --json")
def show(subscriber_id: Name, as_json: AsJson = False) -> None:
    """Show all that is kept of one subscriber; addresses shortened, secrets never."""
    from cli.secret_rotation import secrets_of
    from store.endpoints import disabled_endpoints
    from store.held import count_held
    from store.subscribers import find_record, find_subscriber

    with _opened() as parts, parts.ledger.read() as connection:
        subscriber = find_subscriber(connection, subscriber_id, parts.box)
        record = find_record(connection, subscriber_id)
        disabled = disabled_endpoints(connection)
        held = count_held(connection, subscriber_id)
    if subscriber is None or record is None:
        raise _unknown(subscriber_id)
    row = _row(subscriber, disabled) | {
        "webhook_secrets": len(secrets_of(subscriber)),
        "created_at": record.created_at,
        "changed_at": record.changed_at,
        "held_for_quiet_hours": held.get(HeldFor.QUIET_HOURS.value, 0),
        "held_for_digest": held.get(HeldFor.DIGEST.value, 0),
    }
    if as_json:
        print_json(row)
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for name, value in row.items():
        console.print(f"{name.replace('_', ' '):<20}  {cell(value)}".rstrip())


@app.command(epilog="Example: scanherald subscribers remove anna")
def remove(subscriber_id: Name) -> None:
    """Remove a subscriber; what waits is not sent any more, what was sent stays on record."""
    from store.subscribers import remove_subscriber

    with _opened() as parts, parts.ledger.write() as connection:
        removed = remove_subscriber(connection, subscriber_id, parts.clock())
    if not removed:
        raise _unknown(subscriber_id)
    Console().print(f"Removed {cell(subscriber_id)}.")


@app.command("import", epilog="Example: scanherald subscribers import team.csv --dry-run")
def import_command(
    file: Annotated[Path, typer.Argument(help="FILE.csv, FILE.json or FILE.jsonl.")],
    dry_run: Annotated[bool, typer.Option(help="Check every line and write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add or replace subscribers from a file: all of them, or none if one line is bad.

    Columns of a CSV file and fields of JSON are the same: subscriber_id, user,
    email, webhook, webhook_secret, slack, apprise, events, domains, min_severity,
    quiet_hours, time_zone, passing, digest, digest_at, digest_below, language,
    attach, paused. Several events, domains or formats are separated by spaces in
    CSV and are a list in JSON; what is empty or absent has its default. A webhook
    whose address is known keeps its secret; a new one without a secret is given
    one, shown once. JSON is a list of objects, or one object per line.
    """
    from cli.importing import import_file

    raise typer.Exit(import_file(file, dry_run=dry_run, as_json=as_json))


@app.command("test", epilog="Example: scanherald subscribers test anna --channel email")
def trial(
    subscriber_id: Name,
    channel: Annotated[
        ChannelKind | None, typer.Option(help="Only this channel. All by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a sample now and print what the other side answered; exit status 1 if it refused.

    It goes the way of every message: the same address, signature and guards. It
    is no delivery: nothing is written into the ledger, nothing is tried again,
    and neither pause nor quiet hours hold it back.
    """
    from cli.trial import send_samples

    with _opened() as parts:
        subscriber = _found(parts, subscriber_id)
        raise typer.Exit(send_samples(parts, subscriber, channel, as_json=as_json))


@app.command(epilog="Example: scanherald subscribers rekey")
def rekey(as_json: AsJson = False) -> None:
    """Encrypt every address with the newest key again, so that older keys can go.

    Put a new key in front in SCANHERALD_ENCRYPTION_KEYS and keep the old ones
    after it (without that variable, the old key is the content of encryption.key
    in the data folder); restart every process; run this; then drop the old keys.
    """
    from store.resealing import reseal_all

    with _opened() as parts:
        done = reseal_all(parts.ledger, parts.box)
    if as_json:
        print_json(
            {name: {"sealed_again": again, "kept": total} for name, (again, total) in done.items()}
        )
        return
    console = Console()
    for name, (again, total) in done.items():
        console.print(f"{name}: {again:,} of {total:,} encrypted again with the newest key.")


@app.command("unsubscribe-token", epilog="Example: scanherald subscribers unsubscribe-token anna")
def unsubscribe_token_command(subscriber_id: Name, as_json: AsJson = False) -> None:
    """Print the token by which an e-mail's unsubscribe link names a subscriber."""
    from channels.unsubscribing import unsubscribe_link, unsubscribe_token

    with _opened() as parts:
        _found(parts, subscriber_id)
        key, url = _unsubscribe_key(parts.settings), parts.settings.list_unsubscribe_url
    token, link = unsubscribe_token(subscriber_id, key), unsubscribe_link(subscriber_id, url, key)
    if as_json:
        print_json({"token": token, "link": link and link.url})
        return
    Console(soft_wrap=True, highlight=False).print(token, markup=False)


@app.command("check-token", epilog="Example: scanherald subscribers check-token YW5uYQ.Kx…")
def check_token_command(
    token: Annotated[str, typer.Argument(help="The token of an unsubscribe link.")],
    as_json: AsJson = False,
) -> None:
    """Print whose token it is; exit status 1 if nobody's.  Then: subscribers pause NAME."""
    from channels.unsubscribing import subscriber_of_token

    name = subscriber_of_token(token, _unsubscribe_key(load_settings()))
    if name is None:
        raise NotFound("this token was not made with SCANHERALD_UNSUBSCRIBE_KEY; change nothing")
    if as_json:
        print_json({"subscriber_id": name})
        return
    Console(soft_wrap=True, highlight=False, emoji=False).print(cell(name))


def save(settings: Settings, subscriber: Subscriber) -> bool:
    """Write a subscriber into the ledger.  True if it is new."""
    with _opened(settings) as parts:
        return _save(parts, subscriber)


def _wishes(said: dict[str, Any]) -> Wishes:
    """The options of a command, by the names they have there."""
    lists = {"event": "events", "domain": "domains", "attach": "attach"}
    names = {lists.get(name, name): value for name, value in said.items()}
    given: dict[str, Any] = {
        name: tuple(value) if name in lists.values() else value
        for name, value in names.items()
        if name in Wishes.__dataclass_fields__ and value not in (None, [])
    }
    return Wishes(**given)


@contextmanager
def _opened(settings: Settings | None = None) -> Iterator[Wiring]:
    """The parts, with a ledger that is up to date, for as long as a command takes."""
    from tasks.wiring import wire

    parts = wire(settings or load_settings())
    try:
        parts.ledger.migrate()
        yield parts
    finally:
        parts.close()


def _found(parts: Wiring, subscriber_id: str) -> Subscriber:
    from store.subscribers import find_subscriber

    with parts.ledger.read() as connection:
        subscriber = find_subscriber(connection, subscriber_id, parts.box)
    if subscriber is None:
        raise _unknown(subscriber_id)
    return subscriber


def _unsubscribe_key(settings: Settings) -> str:
    if settings.unsubscribe_key is None:
        raise InvalidSettings(
            "SCANHERALD_UNSUBSCRIBE_KEY is not set; choose 32 random characters or more"
        )
    return settings.unsubscribe_key.get_secret_value()


def _unknown(subscriber_id: str) -> NotFound:
    return NotFound(f"no subscriber {subscriber_id!r}; see: scanherald subscribers list")


def _save(parts: Wiring, subscriber: Subscriber) -> bool:
    from store.subscribers import save_subscriber

    with parts.ledger.write() as connection:
        return save_subscriber(connection, subscriber, parts.box, parts.clock())


def _set_paused(subscriber_id: str, *, paused: bool) -> None:
    with _opened() as parts:
        before = _found(parts, subscriber_id)
        _save(parts, msgspec.structs.replace(before, paused=paused))


def _row(subscriber: Subscriber, disabled: Mapping[tuple[str, ChannelKind], str]) -> dict[str, Any]:
    """A subscriber as it is shown."""
    name = subscriber.subscriber_id
    reasons = {
        address.kind: disabled[name, address.kind]
        for address in subscriber.channels
        if (name, address.kind) in disabled
    }
    return {
        "subscriber_id": name,
        "user_id": subscriber.user_id,
        "channels": ", ".join(
            f"{address.kind.value} {shortened(address)}" for address in subscriber.channels
        ),
        "events": ", ".join(subscriber.events) or ALL,
        "domains": ", ".join(subscriber.domains) or ALL,
        "min_severity": subscriber.min_severity.value,
        "quiet_hours": _quiet_words(subscriber.quiet_hours),
        "digest": _digest_words(subscriber.digest),
        "language": subscriber.locale,
        "attach": ", ".join(subscriber.attach),
        "paused": subscriber.paused,
        "disabled": "; ".join(f"{kind}: {reason}" for kind, reason in reasons.items()),
    }


def _quiet_words(hours: QuietHours | None) -> str | None:
    if hours is None:
        return None
    passing = f"{hours.passing} passes" if hours.passing else "nothing passes"
    return f"{hours.start}-{hours.end} {hours.time_zone}, {passing}"


def _digest_words(digest: Digest) -> str:
    if digest.rhythm is DigestRhythm.IMMEDIATE:
        return digest.rhythm.value
    at = f" at {digest.at}" if digest.rhythm is DigestRhythm.DAILY else ""
    return f"{digest.rhythm.value}{at} {digest.time_zone}, below {digest.below}"


def _print_saved(said: str, new: bool, granted: Granted, *, as_json: bool) -> None:
    name, made = granted.subscriber.subscriber_id, granted.made_secret
    if as_json:
        print_json({"subscriber_id": name, "new": new, "webhook_secret": made})
        return
    console = Console()
    console.print(f"{said} {cell(name)}.")
    if made:
        console.print(f"Webhook secret, shown this once: {made}", soft_wrap=True)
