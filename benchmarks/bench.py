"""``make bench``: all parts, one table of ratios, and the same as JSON.

Each figure comes from one interleaved run on this machine.  Always exits with 0: a
benchmark reports, it does not judge.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console

from benchmarks.contestants import FLOOR, OUR_COLUMNS, time_format
from benchmarks.end_to_end import measure_end_to_end
from benchmarks.fan_in import measure_fan_in
from benchmarks.figures import Figure, as_markdown, draw_table
from benchmarks.growth import measure_growth, measure_processes
from benchmarks.intake import KINDS, measure_intake
from benchmarks.layouts import measure_layouts
from benchmarks.ledger_writes import LAYOUTS, count_writes
from benchmarks.machine import describe_machine
from benchmarks.measure import in_fresh_process
from benchmarks.render import FLOOR_TARGETS
from benchmarks.scans import Variant
from benchmarks.startup import measure_startup
from schemas.reports import DEFAULT_FORMATS, Format
from tests.postgresql import DEBIAN, run_cluster

WIDTH = 220
"""Columns of the table where there is no terminal to ask."""


def _startup(full: bool) -> Iterable[Figure]:
    return measure_startup(9 if full else 5)


def _ledger(_full: bool) -> Iterable[Figure]:
    yield from in_fresh_process(count_writes)
    if next(DEBIAN.glob("*/bin/initdb"), None) is None:
        return
    with run_cluster() as cluster:
        urls = {}
        for number, layout in enumerate(LAYOUTS):
            cluster.administer(f"CREATE DATABASE ledger_{number}")
            urls[layout] = cluster.url(f"ledger_{number}")
        yield from in_fresh_process(count_writes, urls)


def _intake(full: bool) -> Iterable[Figure]:
    for kind in KINDS:
        rounds, count = (7, 500) if full else (5, 150)
        yield from in_fresh_process(measure_intake, kind, rounds=rounds, count=count)


def _fan_in(full: bool) -> Iterable[Figure]:
    rounds, count = (5, 400) if full else (3, 60)
    return measure_fan_in(rounds=rounds, count=count)


def _render(full: bool) -> Iterable[Figure]:
    for size in (200, 5_000) if full else (200,):
        for name in DEFAULT_FORMATS:
            timings = in_fresh_process(time_format, name, size, Variant.REAL, 5, ())
            floor = OUR_COLUMNS if name is Format.PDF else FLOOR
            ours, bare = timings["ours"].seconds, timings[floor].seconds
            yield Figure(
                "render", f"{name.upper()} of {size:,} cookies beside its floor: CPU", ours * 1000,
                bare * 1000, "ms", ours / bare, target=FLOOR_TARGETS.get((name, size)),
            )  # fmt: skip


def _end_to_end(full: bool) -> Iterable[Figure]:
    burst, naive, paced = (200, 40, 200) if full else (80, 8, 60)
    rounds = 3 if full else 2
    for hooks in (1, 3):
        yield from measure_end_to_end(
            rounds=rounds, burst=burst, naive_burst=naive, paced=paced if hooks == 1 or full else 0,
            hooks=hooks,
        )  # fmt: skip
    if full:
        yield from measure_end_to_end(
            rounds=rounds, burst=220, naive_burst=11, paced=110, hooks=1, real=True
        )


def _growth(full: bool) -> Iterable[Figure]:
    yield from measure_growth(full=full)
    if full:
        yield from measure_processes(100)


def _layouts(full: bool) -> Iterable[Figure]:
    return measure_layouts(full=full)


PARTS: dict[str, Callable[[bool], Iterable[Figure]]] = {
    "start-up": _startup,
    "ledger": _ledger,
    "intake": _intake,
    "fan-in": _fan_in,
    "render": _render,
    "end-to-end": _end_to_end,
    "layouts": _layouts,
    "growth": _growth,
}


def main(
    parts: Annotated[str, typer.Option(help="Parts to run, by commas.")] = ",".join(PARTS),
    full: Annotated[bool, typer.Option("--full", help="Large sizes, more rounds.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Figures as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The table as Markdown.")] = None,
) -> None:
    """Measure, and print one table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    machine = describe_machine()
    for label, fact in machine.items():
        console.print(f"{label}: {fact}", highlight=False)
    figures: list[Figure] = []
    began = time.monotonic()
    for name in parts.split(","):
        console.print(f"measuring {name}", style="dim", highlight=False)
        figures += PARTS[name](full)
        machine["took"] = f"{time.monotonic() - began:.0f} s"
        _save(machine, figures, json_file, markdown)  # a part that breaks costs no other
    console.print(draw_table(figures))


def _save(
    machine: dict[str, str], figures: list[Figure], json_file: Path | None, markdown: Path | None
) -> None:
    if json_file:
        told = {"machine": machine, "figures": [figure.as_json() for figure in figures]}
        json_file.write_text(json.dumps(told, indent=1, default=str) + "\n")
    if markdown:
        facts = "\n".join(f"- {label}: {fact}" for label, fact in machine.items())
        markdown.write_text(f"{facts}\n\n{as_markdown(figures)}\n")


if __name__ == "__main__":
    typer.run(main)
