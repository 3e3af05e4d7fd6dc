"""The benchmarks measure what they say: floors lose no text, scans are the same each time."""

from __future__ import annotations

import io

import pytest
from pypdf import PdfReader
from typer import Typer
from typer.testing import CliRunner

from benchmarks import render
from benchmarks.contestants import FLOOR, time_format
from benchmarks.floor_pdf import draw_pdf
from benchmarks.inventory import Summary, Table, eight_columns, our_columns, summarise
from benchmarks.render import Target
from benchmarks.scans import Variant, make_report
from renderers.registry import RENDERERS

LETTERS = [chr(code) for code in (*range(0xC0, 0x250), *range(0x391, 0x3A2), *range(0x400, 0x500))]


def texts_of(pdf: bytes) -> str:
    pages = PdfReader(io.BytesIO(pdf)).pages
    return "".join("".join(page.extract_text().split()) for page in pages)


def assert_in_order(table: Table, text: str) -> None:
    place = 0
    for row in table.rows:
        for cell in row:
            for part in (cell,) if isinstance(cell, str) else cell:
                sought = "".join(part.split())
                place = text.index(sought, place) + len(sought)


@pytest.mark.parametrize("by_calls", [False, True])
def test_the_pdf_floor_loses_no_text_beyond_256_glyphs(by_calls):
    rows = [(f"({n}\\", "".join(LETTERS[n * 7 :][:40]) + f" word{n}" * 9) for n in range(90)]
    table = Table(("A", "B"), (1, 1), 7, rows)
    pdf = draw_pdf(Summary("title", ("line",), (("bar", 1),)), table, by_calls=by_calls)
    assert len(set("".join(map("".join, rows)))) > 512
    assert_in_order(table, texts_of(pdf))


@pytest.mark.parametrize("variant", Variant)
def test_the_pdf_floors_draw_every_text_of_a_scan(variant):
    report = make_report(60, variant)
    for table in (eight_columns(report), our_columns(report)):
        assert len(table.rows) == 60
        assert_in_order(table, texts_of(draw_pdf(summarise(report), table)))


@pytest.mark.parametrize("variant", Variant)
def test_a_synthetic_scan_is_the_same_each_time(variant):
    assert make_report(80, variant) == make_report(80, variant)


def test_unique_scans_repeat_no_name_path_or_purpose():
    cookies = make_report(300, Variant.UNIQUE).cookies
    for field in ("name", "path", "purpose"):
        assert len({getattr(cookie, field) for cookie in cookies}) == 300


@pytest.mark.full
def test_every_format_is_measured_beside_a_floor():
    for format in RENDERERS:
        timings = time_format(format, 5, Variant.REAL, 1, peers=())
        assert {"ours", FLOOR} <= set(timings), format
        assert all(timing.seconds > 0 and timing.bytes > 0 for timing in timings.values())


def test_a_target_holds_on_its_side_of_the_bound():
    assert Target(2.5).holds(2.5)
    assert not Target(2.5).holds(2.6)
    assert Target(15, least=True).holds(15)
    assert not Target(15, least=True).holds(14.9)


@pytest.mark.full
def test_a_run_prints_every_format_beside_its_floor(tmp_path):
    app = Typer()
    app.command()(render.main)
    figures = tmp_path / "figures.json"
    run = CliRunner().invoke(app, ["--sizes", "5", "--rounds", "1", "--json", str(figures)])
    assert run.exit_code == 0, run.output
    for format in RENDERERS:
        assert format.upper() in run.output
    assert '"floor, our columns"' in figures.read_text()
