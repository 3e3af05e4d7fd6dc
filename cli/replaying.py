"""How a replay is run from the command line: asked for, shown while it goes, summed up."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from cli.output import cell, print_json
from schemas.errors import InvalidSettings, PermanentError, ScanheraldError
from schemas.replays import Counts, Failure, ReplayRequest, ReplayState

if TYPE_CHECKING:
    from listener.replay import Progress
    from listener.replay_forecast import Forecast
    from schemas.settings import Settings
    from tasks.wiring import Wiring

INTERRUPTED = 130
"""The exit status of what Ctrl-C ended, as shells have it."""

NAMED = 20
"""Failures named while it goes, and subscribers named in a dry run; JSON has them all."""

SILENT_S = 30.0
"""So long nothing is settled, and whoever watches is told that no worker may be there."""


def run_replay(settings: Settings, request: ReplayRequest, *, yes: bool, as_json: bool) -> None:
    """Begin a replay and drive it to its end."""
    from listener.replay_sources import bounded
    from store.replays import create_replay

    if request.tells and not yes:
        _ask()
    with _parts(settings) as parts:
        selection = bounded(parts, request.source, request.selection)
        replay_id, driver = parts.new_id(), parts.new_id()
        request = replace(request, selection=selection)
        with parts.ledger.write() as connection:
            create_replay(connection, replay_id, request, driver, parts.clock())
        _drive(parts, replay_id, driver, as_json=as_json)


def resume_replay(settings: Settings, replay_id: str, *, as_json: bool) -> None:
    """Go on with a replay; another process that drives it stops at its next step."""
    with _parts(settings) as parts:
        _drive(parts, replay_id, parts.new_id(), as_json=as_json)


def dry_run_replay(settings: Settings, request: ReplayRequest, *, as_json: bool) -> None:
    """Count what a replay would do."""
    from listener.replay_forecast import foresee
    from listener.replay_sources import bounded, open_source

    with _parts(settings) as parts, _bar("dry run") as bar:
        selection = bounded(parts, request.source, request.selection)
        request = replace(request, selection=selection)
        try:
            with open_source(parts, request) as source:
                forecast = foresee(
                    parts, request, source, lambda part, counts: bar(part, _counted(counts))
                )
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped; nothing was changed")
            raise typer.Exit(INTERRUPTED) from None
    _print_forecast(request, forecast, as_json=as_json)


def print_replay(found: Mapping[str, Any], *, as_json: bool) -> None:
    """One replay as ``store.replays.describe`` gives it."""
    if as_json:
        print_json(found)
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    only = ",".join(found["only"])
    console.print(
        f"[bold]replay {found['replay_id']}[/bold]: {found['state']}; {only} from {found['source']}"
    )
    if found["reason"] and found["state"] != ReplayState.DONE.value:
        console.print(f"  {cell(found['reason'])}")
    asked = {**found["selection"]}
    for name in ("formats", "force", "rate"):
        if found[name]:
            asked[name] = found[name]
    for name, value in asked.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        console.print(f"  {name.replace('_', ' ')}: {cell(shown)}")
    console.print(
        f"selected {found['selected']:,}: {found['started']:,} runs, {found['new']:,} of them of "
        f"new events; {sum(found['skipped'].values()):,} skipped; {found['failed']:,} failed"
    )
    for reason, count in found["skipped"].items():
        console.print(f"  {count:,} skipped: {cell(reason)}")
    for item in found["failures"][:NAMED]:
        console.print(f"  failed: {cell(item['name'])}: {cell(item['reason'])}")
    for name in ("runs", "reports", "deliveries"):
        console.print(f"{name}: {_sums(found[name]) or 'none'}")
    if found["state"] != ReplayState.DONE.value:
        console.print(f"go on: scanherald replay --resume {found['replay_id']}")


def in_short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A replay as a row of a table."""
    return {
        **row,
        "only": ",".join(row["only"]),
        "skipped": sum(row["skipped"].values()),
        **{name: _sums(row[name]) or "-" for name in ("runs", "reports", "deliveries")},
    }


def _drive(parts: Wiring, replay_id: str, driver: str, *, as_json: bool) -> None:
    """Drive to the end, show how it goes, and say what came of it."""
    from listener.replay import Driver
    from listener.replay_sources import open_source
    from store.replays import describe, load_replay, take_over
    from tasks.chords import dispatch

    with parts.ledger.write() as connection:
        replay = take_over(connection, replay_id, driver, parts.clock())
    stderr = Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)
    stderr.print(f"replay {replay_id}")
    driving: Driver | None = None
    try:
        with _bar("replay") as bar, open_source(parts, replay.request) as source:
            driving = Driver(parts, replay, source, dispatch, _Shown(bar, stderr, parts.monotonic))
            driving.run()
    except KeyboardInterrupt:
        done = driving is not None and driving.replay.state is ReplayState.DONE
        stderr.print(
            "all is recorded; what is in flight goes on by itself: scanherald replays show "
            f"{replay_id}"
            if done
            else f"stopped; go on: scanherald replay --resume {replay_id}"
        )
        raise typer.Exit(INTERRUPTED) from None
    except ScanheraldError:
        stderr.print(f"go on: scanherald replay --resume {replay_id}")
        raise
    with parts.ledger.read() as connection:
        found = describe(connection, load_replay(connection, replay_id))
    print_replay(found, as_json=as_json)
    wrong = [
        f"{count:,} {what}"
        for count, what in (
            (found["failed"], "could not be used"),
            (found["runs"]["dead"], "runs are dead: see scanherald runs --state dead"),
        )
        if count
    ]
    if wrong:
        raise PermanentError(f"of {found['selected']:,} selected, {'; '.join(wrong)}")


class _Shown:
    """Shows a replay's progress, names what failed, and says when nothing seems to work."""

    def __init__(
        self, bar: Callable[[float, str], None], stderr: Console, monotonic: Callable[[], float]
    ) -> None:
        self._bar = bar
        self._stderr = stderr
        self._monotonic = monotonic
        self._named = 0
        self._last = (-1, -1)
        self._since = monotonic()
        self._told = False

    def __call__(self, progress: Progress) -> None:
        counts = progress.replay.counts
        self._bar(progress.fraction, f"{_counted(counts)}, {progress.in_flight:,} in flight")
        for failure in progress.failures:
            self._name(failure)
        now = (counts.selected, progress.in_flight)
        if now != self._last:
            self._last, self._since, self._told = now, self._monotonic(), False
        elif not self._told and self._monotonic() - self._since > SILENT_S:
            self._told = True
            self._stderr.print(
                f"{progress.in_flight:,} runs are in flight, and none was settled for "
                f"{SILENT_S:.0f} s; do workers run, or do live scans keep them busy?"
            )

    def _name(self, failure: Failure) -> None:
        self._named += 1
        if self._named <= NAMED:
            self._stderr.print(f"{cell(failure.name)}: {cell(failure.reason)}")
        elif self._named == NAMED + 1:
            self._stderr.print("… further ones are counted; scanherald replays show names more")


def _print_forecast(request: ReplayRequest, forecast: Forecast, *, as_json: bool) -> None:
    counts = forecast.counts
    told = dict(sorted(forecast.told.items()))
    if as_json:
        print_json(
            {
                "dry_run": True,
                "source": request.source.value,
                "selected": counts.selected,
                "would_record": counts.new,
                "would_run": counts.started,
                "skipped": counts.skipped,
                "failed": counts.failed,
                "failures": forecast.failures,
                "formats": dict(forecast.formats),
                "told": told if request.tells else None,
            }
        )
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(
        f"selected {counts.selected:,}: {counts.started:,} would run, {counts.new:,} of them "
        f"recorded as new events; {sum(counts.skipped.values()):,} would be skipped; "
        f"{counts.failed:,} cannot be used"
    )
    for reason, count in counts.skipped.items():
        console.print(f"  {count:,} skipped: {cell(reason)}")
    for item in forecast.failures[:NAMED]:
        console.print(f"  cannot be used: {cell(item.name)}: {cell(item.reason)}")
    console.print(f"would be rendered: {_sums(forecast.formats) or 'nothing'}")
    if not request.tells:
        console.print("would be told: nobody")
        return
    console.print(f"would be told: {len(told):,} subscribers")
    for name, share in list(told.items())[:NAMED]:
        console.print(
            f"  {cell(name)}: {share.notifications:,} notifications; deliveries: "
            f"{share.at_once:,} at once, {share.held:,} held, {share.suppressed:,} suppressed"
        )
    if len(told) > NAMED:
        console.print(f"  … and {len(told) - NAMED:,} more; --json names all")


def _ask() -> None:
    """Ask before people are told.  Raises InvalidSettings where nobody can answer."""
    if not sys.stdin.isatty():
        raise InvalidSettings(
            "--only notify tells people again; see whom by --dry-run, then give --yes"
        )
    typer.confirm("Everybody concerned is told again (--dry-run shows whom). Go on?", abort=True)


@contextmanager
def _parts(settings: Settings) -> Iterator[Wiring]:
    """The parts of a process that publishes, and stops at SIGTERM as at Ctrl-C."""
    from schemas import crash_points
    from tasks import wiring
    from tasks.app import publish_only
    from tasks.logs import configure_logs

    configure_logs(settings.model_copy(update={"log_level": "ERROR"}))  # the bar says the rest
    crash_points.arm(settings.crash_dir)
    wiring.use(settings)
    publish_only()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parts = wiring.current()
    try:
        parts.ledger.migrate()
        _ = parts.run_defaults  # an unknown rule pack, language or brand is told now
        yield parts
    finally:
        parts.close()


@contextmanager
def _bar(name: str) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal's standard error; nothing anywhere else."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _part, _text: None
        return
    columns = (
        TextColumn(name),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(name, total=1.0, said="")
        yield lambda part, text: shown.update(task, completed=part, said=text)


def _counted(counts: Counts) -> str:
    return (
        f"{counts.selected:,} selected, {counts.started:,} runs, "
        f"{sum(counts.skipped.values()):,} skipped, {counts.failed:,} failed"
    )


def _sums(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
