"""``scanherald top``: the service at a glance, in a terminal, drawn again and again.

What can be asked is shown; a part that is down is a line that says why.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.output import cell
from cli.settings import load_settings
from schemas.errors import PermanentError

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from listener.look import Look
    from store.gauges import Totals

LATELY = timedelta(minutes=5)
ERRORS_READ = 50
ERRORS = 6
"""Shown; those that say the same of the same count as one."""
FEW_ERRORS = 3
WIDE = 78
"""Columns from which on two tables stand side by side."""
WIDEST, ALIGNED = 100, 52
"""Columns from which on the tables on the right stand below each other, and where."""
TALL = 34
"""Lines from which on all errors are shown."""


@dataclass
class Lately:
    """What the ledger says of the last minutes, as of the last look that it answered."""

    events: dict[str, int] = field(default_factory=dict)
    renders: list[Totals] = field(default_factory=list)
    attempts: list[Totals] = field(default_factory=list)
    errors: list[RowMapping] = field(default_factory=list)

    def ask(self, connection: Connection, now: datetime) -> None:
        """Read it anew."""
        from store.gauges import attempt_totals, events_since, last_errors, render_totals

        since = now - LATELY
        self.events = events_since(connection, since)
        self.renders = render_totals(connection, since)
        self.attempts = attempt_totals(connection, since)
        self.errors = last_errors(connection, ERRORS_READ)


def top_command(
    interval: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
) -> None:
    """Watch streams, queues, workers, runs, deliveries and the last errors.  Ctrl-C ends it."""
    from listener.look import Watcher
    from tasks import wiring

    wiring.use(load_settings())
    parts = wiring.current()
    lately = Lately()
    watcher = Watcher(parts, lately.ask)
    console = Console(emoji=False, highlight=False)
    try:
        if once:
            console.print(frame(watcher.look(), lately, console.width))
            return
        if not console.is_terminal:
            raise PermanentError("top draws on a terminal; use --once for one frame in a file")
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with Live(Text("Looking …"), console=console, screen=True, auto_refresh=False) as live:
            while not stop.is_set():
                look = watcher.look()
                live.update(frame(look, lately, console.width, console.height), refresh=True)
                stop.wait(interval)
    finally:
        parts.close()


def frame(look: Look, lately: Lately, width: int, height: int | None = None) -> RenderableType:
    """One picture of what a look found, for a terminal of so many columns and lines.

    What matters least comes last, where a short terminal cuts it off.
    """
    pairs = (_streams(look), _runs(look)), (_queues(look), _deliveries(look))
    pieces: list[RenderableType] = [_head(look), _parts(look), *_down(look)]
    for left, right in pairs:
        if width >= WIDE:
            grid = Table.grid(padding=(0, 3))
            grid.add_column(min_width=ALIGNED if width >= WIDEST else None)
            grid.add_row(left, right)
            pieces += [Text(), grid]
        else:
            pieces += [Text(), left, Text(), right]
    errors = ERRORS if height is None or height >= TALL else FEW_ERRORS
    pieces += [Text(), _errors(look, lately, errors), Text(), _lately(look, lately)]
    return Group(*pieces)


def _head(look: Look) -> Text:
    beat = look.ledger.beat_ticked if look.ledger else None
    ticked = "none yet" if beat is None else f"{span((look.at - beat).total_seconds())} ago"
    return Text.assemble(
        ("scanherald", "bold"),
        f"  {look.at:%Y-%m-%d %H:%M:%S} UTC",
        ("  beat ", "dim"),
        ticked,
    )


def _parts(look: Look) -> Text:
    line = Text()
    for name, part in look.parts.items():
        line.append(f"{name} ", "dim")
        if part.latency_s is None:
            line.append("down", "bold red")
        else:
            line.append(f"{part.latency_s * 1000:.0f} ms", "green")
        line.append("  ")
    return line


def _down(look: Look) -> Iterable[Text]:
    for name, part in look.parts.items():
        if part.error is not None:
            said = part.error if part.error.startswith(name) else f"{name}: {part.error}"
            yield Text.from_markup(cell(said), style="red", emoji=False)


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
        min_width=len(title),
    )
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _streams(look: Look) -> Table:
    table = _table("Streams", "stream", "unread", "pending", "oldest", "readers")
    for lag in look.streams or ():
        late = lag.oldest_s is not None and lag.oldest_s >= 60
        table.add_row(
            cell(lag.stream),
            number(lag.unread),
            number(lag.pending),
            Text(span(lag.oldest_s), "yellow" if late else ""),
            number(lag.consumers),
        )
    if look.streams is None:
        table.add_row("?", *"????")
    return table


def _queues(look: Look) -> Table:
    table = _table("Queues", "queue", "waiting", "workers")
    if look.broker is None:
        table.add_row("?", "?", "?")
        return table
    for name, waiting in look.broker.waiting.items():
        workers = look.broker.workers.get(name, 0)
        table.add_row(name, number(waiting), Text(number(workers), "" if workers else "bold red"))
    return table


def _runs(look: Look) -> Table:
    table = _table("Runs", "state", "runs", "oldest")
    if look.ledger is None:
        table.add_row("?", "?", "?")
        return table
    unfinished = look.ledger.runs["recorded"] + look.ledger.runs["dispatched"]
    oldest = look.ledger.oldest_unfinished
    age_s = None if oldest is None else (look.at - oldest).total_seconds()
    table.add_row(
        "unfinished",
        number(unfinished),
        Text(span(age_s), "yellow" if age_s is not None and age_s >= 900 else ""),
    )
    dead = look.ledger.runs["dead"]
    table.add_row("dead", Text(number(dead), "red" if dead else ""), "")
    letters = look.ledger.dead_letters
    table.add_row("dead letters", Text(number(letters), "red" if letters else ""), "")
    return table


def _deliveries(look: Look) -> Table:
    table = _table("Deliveries", "channel", "pending", "held", "sending")
    if look.ledger is None:
        table.add_row("?", "?", "?", "?")
        return table
    counts = look.ledger.deliveries
    for channel in sorted({channel for channel, _ in counts}):
        waiting = (counts.get((channel, state), 0) for state in ("pending", "held", "sending"))
        table.add_row(channel, *map(number, waiting))
    if not counts:
        table.add_row("none waits", "", "", "")
    return table


def _lately(look: Look, lately: Lately) -> Table:
    table = _table("Last five minutes", "", "number", "mean", "longest", "failed")
    if look.ledger is None:
        table.add_row("?", *"????")
        return table
    table.add_row("events recorded", number(sum(lately.events.values())), "", "", "")
    for what, totals, good in (
        ("rendered", lately.renders, "ready"),
        ("sent by", lately.attempts, "sent"),
    ):
        for name in sorted({total.name for total in totals}):
            found = {total.outcome: total for total in totals if total.name == name}
            well = found.get(good)
            failed = sum(
                total.count for total in found.values() if total.outcome in ("failed", "retry")
            )
            table.add_row(
                f"{what} {name}",
                number(well.count if well else 0),
                _ms(well.mean_ms if well else None),
                _ms(well.longest_ms if well else None),
                Text(number(failed), "red" if failed else ""),
            )
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def _errors(look: Look, lately: Lately, limit: int) -> RenderableType:
    """Two lines each: when and of what, then what was said."""
    title = Text("Last errors", "bold")
    if look.ledger is None:
        return Group(title, Text("?"))
    if not lately.errors:
        return Group(title, Text("none"))
    alike: dict[tuple[str, str], list[RowMapping]] = {}
    for row in lately.errors:
        alike.setdefault((row["what"], row["error"]), []).append(row)
    lines = []
    for row, *others in list(alike.values())[:limit]:
        ago = f"{span((look.at - row['at']).total_seconds())} ago"
        more = f", and {len(others)} like it" if others else ""
        lines += [
            f"{cell(row['what'])} {cell(row['identity'])}  [dim]{ago}{more}[/dim]",
            f"  {cell(_one_line(row['error']))}",
        ]
    return Group(
        title,
        *(_single(line) for line in lines),
    )


def _single(markup: str) -> Text:
    """One line on the screen, however narrow: what does not fit is cut."""
    text = Text.from_markup(markup, emoji=False)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _one_line(text: str | None) -> str:
    return " ".join((text or "-").split())


def number(value: int | None) -> str:
    """A count, or ? where nobody can tell."""
    return "?" if value is None else f"{value:,}"


def span(seconds: float | None) -> str:
    """A length of time in two units at most: 45 s, 3 min 20 s, 2 h 5 min, 4 d 3 h."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    for place, (name, size) in enumerate(units):
        if whole >= size or name == "s":
            count, rest = divmod(whole, size)
            said = f"{count} {name}"
            if place + 1 < len(units) and (less := rest // units[place + 1][1]):
                said += f" {less} {units[place + 1][0]}"
            return said
    raise AssertionError("the smallest unit always fits")
