"""Who takes part: every renderer of the registry, its floors, and the peers that are installed.

Runs in the processes that ``measure`` starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import cycle

import msgspec

from benchmarks.floor_csv import list_values, write_csv
from benchmarks.floor_html import write_html
from benchmarks.floor_json import list_builtins, write_json
from benchmarks.floor_pdf import draw_pdf
from benchmarks.floor_xlsx import write_xlsx
from benchmarks.inventory import all_texts, eight_columns, our_columns, summarise
from benchmarks.measure import Timing, measure_peak, time_rounds
from benchmarks.scans import Variant, make_report
from renderers.registry import render
from schemas.reports import Format, Report

PEERS = ("platypus", "typst", "weasyprint", "fpdf2")
WARM_UP_COOKIES = 5
DRAWS = 12
MOST_DRAWN_COOKIES = 500
"""A larger report is more than a process remembers; its next round finds little of the last."""

FLOOR = "floor"
OUR_COLUMNS = "floor, our columns"
BY_CALLS = "floor, by calls"

Contestants = dict[str, Callable[[], bytes]]


def list_missing_peers() -> dict[str, str]:
    """Peers that cannot be imported, with the reason."""
    missing = {}
    for peer in PEERS:
        try:
            import_module(f"benchmarks.peer_{peer}")
        except (ImportError, OSError) as error:  # OSError: a system library is missing
            missing[peer] = str(error).splitlines()[0]
    return missing


def time_format(
    format: Format, count: int, variant: Variant, rounds: int, peers: tuple[str, ...]
) -> dict[str, Timing]:
    """What every contestant takes for ``count`` cookies; fonts and templates are loaded before.

    Raises RenderFailed where our renderer does.
    """
    time_rounds(_line_up([make_report(WARM_UP_COOKIES)], format, peers), 1)
    # A process remembers what it has set: it must not meet one and the same report again and again.
    draws = DRAWS if count <= MOST_DRAWN_COOKIES else 1
    reports = [make_report(count, variant, draw) for draw in range(draws)]
    return time_rounds(_line_up(reports, format, peers), rounds)


def _line_up(reports: list[Report], format: Format, peers: tuple[str, ...]) -> Contestants:
    report, turns = reports[0], cycle(reports)
    line_up: Contestants = {
        "ours": lambda: render(next(turns), format),
        **_floors(report, format),
    }
    if format is Format.PDF:
        bare = summarise(report), eight_columns(report)
        for peer in peers:
            line_up[peer] = partial(import_module(f"benchmarks.peer_{peer}").draw, *bare)
    return line_up


def _floors(report: Report, format: Format) -> Contestants:
    match format:
        case Format.PDF:
            summary, bare = summarise(report), eight_columns(report)
            return {
                FLOOR: partial(draw_pdf, summary, bare),
                OUR_COLUMNS: partial(draw_pdf, summary, our_columns(report)),
                BY_CALLS: partial(draw_pdf, summary, bare, by_calls=True),
            }
        case Format.HTML:
            return {FLOOR: partial(write_html, all_texts(report))}
        case Format.JSON:
            return {FLOOR: partial(write_json, list_builtins(report))}
        case Format.CSV:
            return {FLOOR: partial(write_csv, list_values(report))}
        case Format.XLSX:
            return {FLOOR: partial(write_xlsx, list_values(report))}


def make_report_json(count: int, variant: Variant) -> bytes:
    """A Report for another process, so that making it leaves no free memory behind there."""
    return msgspec.json.encode(make_report(count, variant))


def measure_memory(report_json: bytes, format: Format) -> int:
    """Bytes that the first report in ``format`` adds to a fresh process, fonts included."""
    report = msgspec.json.decode(report_json, type=Report)
    return measure_peak(partial(render, report, format))
