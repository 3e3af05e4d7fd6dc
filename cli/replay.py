"""``replay`` and ``replays``: old events through the service again, and what came of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.audit import parse_since
from cli.records import AsJson, Limit
from cli.settings import load_settings
from schemas.errors import InvalidSettings
from schemas.replays import Only, ReplayRequest, ReplaySource, Selection
from schemas.reports import Format

if TYPE_CHECKING:
    from datetime import datetime

    from schemas.settings import Settings

IN_FLIGHT = 20

OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="reports|notify",
        help="Make reports and wake nobody (the default), or tell again and render nothing; "
        "repeat it, or reports,notify, for both.",
    ),
]
FormatsOption = Annotated[
    list[str] | None,
    typer.Option("--formats", metavar="F,…", help="Only these, such as pdf,csv."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Render what is there, too.")]
RateOption = Annotated[
    str | None,
    typer.Option(metavar="N/s", help="Runs started a second.  [default: as the cap allows]"),
]
InFlightOption = Annotated[
    int, typer.Option(min=1, help="Runs of the replay that may be unfinished at once.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Count what would be done, and change nothing.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Tell people without asking first.")]


def replay_command(
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|FOLDER|NUMBER]…",
            help="Files of JSON or JSON lines, or folders of them; with --from-dead-letters, "
            "numbers of letters.",
        ),
    ] = None,
    from_archive: Annotated[
        bool,
        typer.Option("--from-archive", help="The ledger's events: the default without files."),
    ] = False,
    from_stream: Annotated[
        bool, typer.Option("--from-stream", help="The entries that the streams still have.")
    ] = False,
    from_dead_letters: Annotated[
        bool, typer.Option("--from-dead-letters", help="Dead letters, decoded again.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHEN",
            help="Taken in from then on: 24h, 7d, or a date or time (UTC); an entry id with "
            "--from-stream.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="WHEN", help="Up to then, included.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only domains like this, such as *.de.")
    ] = None,
    scan: Annotated[str | None, typer.Option(help="Only this scan id.")] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="Only events of this type, such as scan.failed.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only scans that say this of themselves in their field `status`."),
    ] = None,
    only: OnlyOption = None,
    formats: FormatsOption = None,
    force: ForceOption = False,
    rate: RateOption = None,
    in_flight: InFlightOption = IN_FLIGHT,
    resume: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Go on with a replay that was stopped or killed."),
    ] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Run old events again: from the ledger, the streams, files, or dead letters after a fix.

    A replay is idempotent and can be resumed. It makes missing reports and wakes nobody, unless
    --only notify asks for it; then everybody concerned is told once for this replay. Live scans go
    first. An event whose run is dead is better taken up by: scanherald runs retry.
    """
    from cli.replaying import dry_run_replay, resume_replay, run_replay

    settings = load_settings()
    if resume is not None:
        if items or from_archive or from_stream or from_dead_letters:
            raise InvalidSettings("--resume goes on with what the replay selected; name nothing")
        resume_replay(settings, resume, as_json=as_json)
        return
    source = _source(items, from_archive, from_stream, from_dead_letters)
    request = make_request(
        settings,
        source,
        _selection(settings, source, items or [], since, until, domain, scan, kind, status),
        only=only,
        formats=formats,
        force=force,
        rate=rate,
        in_flight=in_flight,
    )
    if dry_run:
        dry_run_replay(settings, request, as_json=as_json)
    else:
        run_replay(settings, request, yes=yes, as_json=as_json)


def make_request(
    settings: Settings,
    source: ReplaySource,
    selection: Selection,
    *,
    only: list[str] | None,
    formats: list[str] | None,
    force: bool = False,
    rate: str | None = None,
    in_flight: int = IN_FLIGHT,
) -> ReplayRequest:
    """What was asked for.  Raises InvalidSettings."""
    wanted = _listed(only, Only, "--only") or (Only.REPORTS,)
    if source is ReplaySource.DEAD_LETTERS and Only.REPORTS not in wanted:
        raise InvalidSettings(
            "a dead letter was never an event, so there is nothing to tell again; leave --only "
            "out, or say --only reports,notify"
        )
    from listener.replay import most_in_flight

    most = most_in_flight(settings)
    if in_flight > most:
        raise InvalidSettings(
            f"--in-flight {in_flight} could fill the queue that listeners stop reading for; at "
            f"most {most} is half of SCANHERALD_REPORTS_HIGH_WATER ({settings.reports_high_water})"
        )
    return ReplayRequest(
        source=source,
        selection=selection,
        renders=Only.REPORTS in wanted,
        tells=Only.NOTIFY in wanted,
        formats=_listed(formats, Format, "--formats") or None,
        force=force,
        rate=0 if rate is None else _rate(rate),
        in_flight=in_flight,
    )


def replays_list(context: typer.Context, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List replays, newest first, with what came of them; `show ID` tells all of one."""
    if context.invoked_subcommand is not None:
        return
    from cli.output import print_rows
    from cli.replaying import in_short
    from store.ledger import open_ledger
    from store.replays import list_replays

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        found = list_replays(connection, limit)
    print_rows(
        found if as_json else [in_short(row) for row in found],
        (
            *("replay_id", "source", "only", "state", "selected", "started", "skipped", "failed"),
            *("runs", "reports", "deliveries", "updated_at"),
        ),
        as_json=as_json,
        empty="No replays yet. See: scanherald replay --help",
    )


def replays_show(
    replay_id: Annotated[str, typer.Argument(help="Id, as scanherald replays lists it.")],
    as_json: AsJson = False,
) -> None:
    """Show one replay: what was asked for, how far it is, what was skipped and why, what failed."""
    from cli.replaying import print_replay
    from store.ledger import open_ledger
    from store.replays import describe, load_replay

    with open_ledger(load_settings().ledger_url) as ledger, ledger.read() as connection:
        found = describe(connection, load_replay(connection, replay_id))
    print_replay(found, as_json=as_json)


app = typer.Typer(
    invoke_without_command=True, help="What was replayed, how far it is, and what came of it."
)
app.callback(epilog="Example: scanherald replays --json")(replays_list)
app.command("show", epilog="Example: scanherald replays show 5f0c…")(replays_show)


def _source(
    items: list[str] | None, from_archive: bool, from_stream: bool, from_dead_letters: bool
) -> ReplaySource:
    named = [
        source
        for source, given in (
            (ReplaySource.ARCHIVE, from_archive),
            (ReplaySource.STREAM, from_stream),
            (ReplaySource.DEAD_LETTERS, from_dead_letters),
        )
        if given
    ]
    if len(named) > 1 or (items and named not in ([], [ReplaySource.DEAD_LETTERS])):
        raise InvalidSettings(
            "name one source: files, --from-archive, --from-stream or --from-dead-letters"
        )
    if named:
        return named[0]
    return ReplaySource.FILES if items else ReplaySource.ARCHIVE


def _selection(
    settings: Settings,
    source: ReplaySource,
    items: list[str],
    since: str | None,
    until: str | None,
    domain: str | None,
    scan: str | None,
    kind: str | None,
    status: str | None,
) -> Selection:
    from listener.replay_files import resolve
    from listener.replay_stream import ENTRY_ID
    from schemas.events import published_type
    from tasks.wiring import utc_now

    if source is ReplaySource.FILES and (since or until):
        raise InvalidSettings(
            "--from and --to say when an event was taken in, which no file says; leave them out"
        )
    for text, option in (
        *((domain, "--domain"), (scan, "--scan"), (kind, "--type"), (status, "--status")),
        *((since, "--from"), (until, "--to")),
    ):
        if text is not None and not text.strip():
            raise InvalidSettings(f"{option} is empty, and would choose nothing; leave it out")
    now = utc_now()
    moments: dict[str, datetime] = {}
    entries: dict[str, str] = {}
    for text, option in ((since, "--from"), (until, "--to")):
        if text is None:
            continue
        if source is ReplaySource.STREAM and ENTRY_ID.fullmatch(text):
            entries[option] = text
        else:
            moments[option] = parse_since(text, now, option)
    try:
        wanted_type = None if kind is None else published_type(kind).value
    except ValueError as error:
        raise InvalidSettings(f"--type {error}") from error
    return Selection(
        since=moments.get("--from"),
        until=moments.get("--to"),
        first_entry=entries.get("--from"),
        last_entry=entries.get("--to"),
        streams=settings.streams if source is ReplaySource.STREAM else (),
        files=resolve([Path(item) for item in items]) if source is ReplaySource.FILES else (),
        numbers=tuple(map(_number, items)) if source is ReplaySource.DEAD_LETTERS else (),
        domain=domain,
        scan_id=None if scan is None else scan.strip().lower(),
        type=wanted_type,
        status=status,
    )


def _number(text: str) -> int:
    if not text.isdecimal():
        raise InvalidSettings(
            f"{text!r} is no number of a dead letter; see: scanherald dead-letters"
        )
    return int(text)


def _rate(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:/s)?", text.strip())
    rate = 0.0 if match is None else float(match[1])
    if not rate:
        raise InvalidSettings(
            f"--rate {text!r} is not a number of runs a second above 0, such as 5/s; leave it out "
            "to start them as --in-flight allows"
        )
    return rate


Named = TypeVar("Named", Only, Format)


def _listed(given: list[str] | None, kind: type[Named], option: str) -> tuple[Named, ...]:
    """Names, repeated or with commas between them, each once.  Raises InvalidSettings."""
    names = [part.strip() for text in given or () for part in text.split(",") if part.strip()]
    try:
        return tuple(dict.fromkeys(kind(name) for name in names))
    except ValueError:
        known = ", ".join(kind)
        raise InvalidSettings(f"{option} {','.join(names)}: give of {known}") from None
