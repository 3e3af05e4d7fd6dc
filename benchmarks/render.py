"""``python -m benchmarks.render``: what our renderers cost beside their floors and peers.

Prints one table of ratios, all measured in this run, and always exits with 0: a
benchmark reports, it does not judge.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import (
    BY_CALLS,
    FLOOR,
    OUR_COLUMNS,
    PEERS,
    list_missing_peers,
    make_report_json,
    measure_memory,
    time_format,
)
from benchmarks.machine import describe_machine
from benchmarks.measure import Timing, in_fresh_process
from benchmarks.scans import Variant
from renderers.registry import RENDERERS
from schemas.errors import RenderFailed
from schemas.reports import Format

INSTALL_PEERS = '.venv/bin/pip install -e ".[bench]"'
MOST_PEER_COOKIES = 5_000
"""Peers draw no more than this: the slowest takes half a minute for it."""
BASE, BIG = 5_000, 50_000
"""Sizes between which growth is told; memory is told at the big one."""
WIDTH = 110
"""Columns of the table where there is no terminal to ask."""

Timings = dict[Format, dict[int, dict[str, Timing]]]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound of a figure, from above or (``least``) from below."""

    bound: float
    unit: str = "×"
    least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g} {self.unit}"

    def holds(self, figure: float) -> bool:
        """Whether ``figure`` is on the right side."""
        return figure >= self.bound if self.least else figure <= self.bound


FLOOR_TARGETS = {
    (Format.PDF, 200): Target(2.5),
    (Format.PDF, BASE): Target(2.5),
    (Format.HTML, BASE): Target(1.5),
    (Format.JSON, BASE): Target(1.5),
    (Format.CSV, BASE): Target(1.5),
}
PEER_TARGETS = {
    "platypus": Target(15, "× faster", least=True),
    "typst": Target(4, "× faster", least=True),
    "weasyprint": Target(80, "× faster", least=True),
}
GROWTH_TARGETS = {Format.PDF: Target(11)}
MEMORY_TARGETS = {Format.PDF: Target(120, "MB")}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.  Times are CPU seconds."""

    format: Format
    cookies: str
    against: str
    ours: float | None
    other: float | None
    figure: float
    unit: str
    target: Target | None = None

    @property
    def verdict(self) -> str:
        """ok, miss, or nothing where there is no target."""
        return "" if self.target is None else "ok" if self.target.holds(self.figure) else "miss"


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of cookies.")] = "50,200,500,5000,50000",
    formats: Annotated[str, typer.Option(help="Formats to measure.")] = ",".join(RENDERERS),
    peers: Annotated[bool, typer.Option("--peers", help="Peers too, up to 5,000.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 7,
    variant: Annotated[Variant, typer.Option(help="How texts repeat.")] = Variant.REAL,
    json_file: Annotated[Path | None, typer.Option("--json", help="Figures as JSON.")] = None,
) -> None:
    """Measure the renderers beside their floors, and print ratios."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    machine = describe_machine()
    for label, fact in machine.items():
        console.print(f"{label}: {fact}", highlight=False)
    drawing = _find_peers(console) if peers else ()
    timings: Timings = {}
    memory: dict[Format, int] = {}
    counts = [int(size) for size in sizes.split(",")]
    for format in map(Format, formats.split(",")):
        console.print(f"measuring {format}", style="dim", highlight=False)
        try:
            timings[format] = {
                count: in_fresh_process(
                    time_format, format, count, variant, rounds,
                    drawing if count <= MOST_PEER_COOKIES else (),
                )
                for count in counts
            }  # fmt: skip
            if BIG in counts:
                report_json = in_fresh_process(make_report_json, BIG, variant)
                memory[format] = in_fresh_process(measure_memory, report_json, format)
        except RenderFailed as error:
            console.print(f"skipped {format}: {error}", markup=False)
    rows = _compare(timings, memory)
    console.print(_draw_table(rows, variant))
    if json_file:
        json_file.write_text(_as_json(machine, variant, timings, rows))


def _find_peers(console: Console) -> tuple[str, ...]:
    missing = in_fresh_process(list_missing_peers)
    for peer, reason in missing.items():
        console.print(f"skipped {peer} ({reason}); install peers: {INSTALL_PEERS}", markup=False)
    return tuple(peer for peer in PEERS if peer not in missing)


def _compare(timings: Timings, memory: dict[Format, int]) -> list[Row]:
    rows = []
    for format, of_format in timings.items():
        for count, of_size in of_format.items():
            rows += _compare_one(format, count, of_size)
        if BASE in of_format and BIG in of_format:
            base, big = (of_format[count]["ours"].seconds for count in (BASE, BIG))
            rows.append(
                Row(format, f"{BASE:,} → {BIG:,}", "growth of CPU", big, base, big / base, "×",
                    GROWTH_TARGETS.get(format))
            )  # fmt: skip
        if format in memory:
            rows.append(
                Row(format, f"{BIG:,}", "memory added", None, None, memory[format] / 1e6, "MB",
                    MEMORY_TARGETS.get(format))
            )  # fmt: skip
    return rows


def _compare_one(format: Format, count: int, timings: dict[str, Timing]) -> list[Row]:
    ours = timings["ours"].seconds
    # The bare inventory of a PDF is that with the texts our own shows, nothing else around it.
    bare = OUR_COLUMNS if format is Format.PDF else FLOOR
    rows = []
    for name, timing in timings.items():
        other = timing.seconds
        if name in (FLOOR, OUR_COLUMNS, BY_CALLS):
            target = FLOOR_TARGETS.get((format, count)) if name == bare else None
            rows.append(Row(format, f"{count:,}", name, ours, other, ours / other, "×", target))
        elif name in PEERS:
            target = PEER_TARGETS.get(name) if count == BASE else None
            figure = other / ours
            rows.append(Row(format, f"{count:,}", name, ours, other, figure, "× faster", target))
    return rows


def _draw_table(rows: list[Row], variant: Variant) -> Table:
    table = Table(title=f"CPU milliseconds and ratios of this run, texts: {variant}")
    table.add_column("format")
    for title in ("cookies", "ours ms"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("against", no_wrap=True)
    for title in ("its ms", "figure", "target"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for place, row in enumerate(rows):
        table.add_row(
            row.format.upper(),
            row.cookies,
            _milliseconds(row.ours),
            row.against,
            _milliseconds(row.other),
            f"{row.figure:,.2f} {row.unit}",
            "" if row.target is None else str(row.target),
            row.verdict,
            style="bold red" if row.verdict == "miss" else None,
            end_section=place + 1 < len(rows) and rows[place + 1].format != row.format,
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    shown = seconds * 1000
    return f"{shown:,.0f}" if shown >= 100 else f"{shown:.3g}"


def _as_json(machine: dict[str, str], variant: Variant, timings: Timings, rows: list[Row]) -> str:
    return json.dumps(
        {
            "machine": machine,
            "variant": variant,
            "timings": {
                format: {
                    str(count): {name: asdict(timing) for name, timing in of_size.items()}
                    for count, of_size in of_format.items()
                }
                for format, of_format in timings.items()
            },
            "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
        },
        indent=1,
    )


if __name__ == "__main__":
    typer.run(main)
