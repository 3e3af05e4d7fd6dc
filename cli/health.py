"""``health``: how each part is, and what to do; ``stats``: the figures of the last hours."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli import liveness
from cli.output import cell, print_json, print_rows
from cli.records import AsJson
from cli.settings import load_settings
from schemas.errors import InvalidSettings
from schemas.health import EXIT_STATUS, PartHealth, State, worst
from store.heartbeats import PARTS

if TYPE_CHECKING:
    from tasks.wiring import Wiring

COLOURS = {State.HEALTHY: "green", State.DEGRADED: "yellow", State.DOWN: "red"}


def health_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...",
            help="listener, worker, beat, redis, broker, ledger, artifacts, channels; all by "
            "default.",
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Only whether processes of this machine live: no network."),
    ] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask what the named parts, or all, depend on.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again.")] = False,
    every: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="With --watch: how often.")
    ] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Say how each part is, how long that took to find out, and what to do.

    Exit status: 0 healthy, 1 degraded, 2 down, by the worst part.
    """
    if live and (ready or watch):
        raise InvalidSettings("--live goes with neither --ready nor --watch")
    settings = load_settings()
    if live:
        _known(names or [], PARTS)
        question = liveness.Question(tuple(names or ()), as_json)
        raise typer.Exit(liveness.answer(question, settings.heartbeat_folder))
    from listener.health import EVERYTHING, Examiner
    from tasks import wiring
    from tasks.logs import configure_logs

    _known(names or [], EVERYTHING)
    configure_logs(settings.model_copy(update={"log_level": "ERROR"}))  # the table says the rest
    wiring.use(settings)
    parts = wiring.current()
    examiner, asked = Examiner(parts), _asked(names or [], ready=ready)
    state = State.DOWN
    try:
        while True:
            found = examiner.look(asked)
            state = worst(part.state for part in found)
            if as_json:
                liveness.print_health(state, found)
            else:
                _print(found, is_watching=watch)
            if not watch:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        pass
    raise typer.Exit(EXIT_STATUS[state])


def _known(names: Sequence[str], known: Sequence[str]) -> None:
    wrong = [name for name in names if name not in known]
    if wrong:
        raise InvalidSettings(
            f"no part {', '.join(map(repr, wrong))} to ask; there are: {', '.join(known)}"
        )


def _asked(names: Sequence[str], *, ready: bool) -> list[str]:
    from listener.health import DEPENDENCIES, EVERYTHING, NEEDS

    if not ready:
        return list(names or EVERYTHING)
    if not names:
        return list(DEPENDENCIES)
    # each once, the named ones first
    return list(dict.fromkeys([*names, *(need for name in names for need in NEEDS.get(name, ()))]))


def _print(found: Sequence[PartHealth], *, is_watching: bool) -> None:
    console = Console(emoji=False, highlight=False)
    if is_watching:
        if console.is_terminal:
            console.clear()
        console.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    table = Table(box=None, show_header=False, pad_edge=False)
    for column, justify in (("part", "left"), ("state", "left"), ("ms", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # of three
    table.add_column("says", overflow="fold")
    for part in found:
        says = cell(part.says) + (f"\n[bold]→[/bold] {cell(part.do)}" if part.do else "")
        table.add_row(
            part.part,
            f"[{COLOURS[part.state]}]{part.state}[/]",
            f"{part.latency_ms:.0f} ms",
            says,
        )
    console.print(table)


def stats_command(
    hours: Annotated[int, typer.Option(min=1, help="Hours to look back.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Count what the last hours brought: events, runs, reports, deliveries, and how long they took.

    Percentiles are exact, however many there were.
    """
    from store.ledger import open_ledger
    from tasks.last_hours import notification_figures, task_figures
    from tasks.wiring import wire

    settings = load_settings()
    with open_ledger(settings.ledger_url):
        parts = wire(settings)
        try:
            work, told = task_figures(parts, hours), notification_figures(parts, hours)
        finally:
            parts.close()
        lag = _lag(parts)
    if as_json:
        print_json({"tasks": work, "notifications": told, "stream": lag})
        return
    _print_figures(work, told, lag)


def _lag(parts: Wiring) -> list[dict[str, Any]] | str:
    """How far the listeners are behind, or why that cannot be told."""
    from dataclasses import asdict

    from schemas.errors import StreamUnavailable
    from tasks.lag import read_lag

    settings = parts.settings
    try:
        found = read_lag(
            settings.redis_url, settings.streams, settings.consumer_group, parts.clock()
        )
    except StreamUnavailable as error:
        return str(error)
    return [asdict(one) for one in found]


def _print_figures(
    work: Mapping[str, Any], told: Mapping[str, Any], lag: list[dict[str, Any]] | str
) -> None:
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    rates, oldest = work["per_hour"], work["oldest_unfinished_run_s"]
    console.print(f"[bold]Last {work['hours']} hours[/bold], to {work['taken_at'][:19]} UTC")
    console.print(f"events       {_counts(work['events'])}; {rates['events']} per hour")
    console.print(f"dead events  {work['dead_events']}")
    console.print(f"runs         {_counts(work['runs'])}; {rates['runs_done']} done per hour")
    console.print(f"oldest run   {'none is unfinished' if oldest is None else f'{oldest:.0f} s'}")
    score = "" if work["mean_score"] is None else f", mean score {work['mean_score']}"
    console.print(f"scans        {work['scans_judged']} judged{score}")
    if isinstance(lag, str):
        console.print(f"stream       {cell(lag)}")
    else:
        for one in lag:
            console.print(
                f"stream       {cell(one['stream'])}: {one['unread']} unread, "
                f"{one['pending']} pending, {one['consumers']} consumers"
            )
    console.print(f"\n[bold]Reports[/bold], {rates['reports_ready']} ready per hour; render times")
    print_rows(
        [
            {"format": name, **_counted(made["by_status"], _REPORTS), **_ms(made.get("render_ms"))}
            for name, made in work["reports"].items()
        ],
        ("format", *_REPORTS, *_MS),
        as_json=False,
        empty="None.",
    )
    rate = told["success_rate"]
    console.print(
        f"\n[bold]Deliveries[/bold], {told['per_hour']['sent']} sent per hour; {told['overdue']} "
        f"overdue; {'no tries' if rate is None else f'{rate:.1%} of the tries succeeded'}; "
        "send times"
    )
    print_rows(
        [
            {
                "channel": name,
                **_counted(states, _DELIVERIES),
                **_ms(told["send_ms"].get(name)),
            }
            for name, states in told["deliveries"].items()
        ],
        ("channel", *_DELIVERIES, *_MS),
        as_json=False,
        empty="None.",
    )


_REPORTS = ("ready", "failed", "pending", "expired")
_DELIVERIES = ("sent", "failed", "suppressed", "held", "pending", "sending")
_MS = ("p50_ms", "p95_ms", "p99_ms")


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {cell(name)}" for name, count in sorted(by_name.items())) or "none"


def _counted(by_state: Mapping[str, int], states: Sequence[str]) -> dict[str, int]:
    return {state: by_state.get(state, 0) for state in states}


def _ms(times: Mapping[str, float] | None) -> dict[str, float | None]:
    return {f"{name}_ms": (times or {}).get(name) for name in ("p50", "p95", "p99")}
