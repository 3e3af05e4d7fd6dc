"""LibreOffice opens the table and the workbook of a hostile scan and computes nothing.

Proved on what it makes of them: in its own flat format (``.fods``) a cell that
was taken for a formula says so.
"""

from __future__ import annotations

import csv
import io
import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import openpyxl
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.csv_table import render_csv
from renderers.xlsx_workbook import render_xlsx
from schemas.reports import Report
from schemas.scans import Scan

pytestmark = pytest.mark.full

TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"

BEFORE = (
    "", " ", "\t", "\r", "\n", "\u3000", "\xa0", "\u200b", "\ufeff", "\x00", "\u202e", "'", '"',
    ",", ";", "x;", "x\t", "x\n", "x\r", 'x";', 'x",', 'x\n"', 'x;"', "x; ", "x;\u200b",
)  # fmt: skip
FORMULAS = (
    "=1+1", "+1+1", "-1+1", "@SUM(1,1)", "＝1+1", "－1+1", "{=1+1}", "=", "=cmd|'/C calc'!A0",
    '=HYPERLINK("https://x.example")', '=WEBSERVICE("https://x.example")',
)  # fmt: skip
NAMES = [before + formula for before, formula in itertools.product(BEFORE, FORMULAS)]

COMMA, TAB, SEMICOLON = 44, 9, 59
SEPARATORS = {
    "the comma": f"{COMMA}",
    "what its dialog proposes": f"{TAB}/{COMMA}/{SEMICOLON}",
    "the semicolon of many countries": f"{SEMICOLON}",
    "tabs": f"{TAB}",
}


@dataclass(frozen=True)
class Cell:
    text: str
    is_formula: bool


def open_in_libreoffice(path: Path, separators: str = f"{COMMA}") -> list[list[list[Cell]]]:
    """The sheets as LibreOffice understands them, row by row, empty ends left out."""
    # UTF-8, from line 1, quoted texts not forced to be texts, special numbers detected:
    # as eager to compute as it gets.
    as_csv = [f"--infilter=CSV:{separators},34,76,1,,0,false,true"]
    subprocess.run(
        ["soffice", f"-env:UserInstallation={(path.parent / 'profile').as_uri()}", "--headless",
         *(as_csv if path.suffix == ".csv" else []),
         "--convert-to", "fods", "--outdir", str(path.parent), str(path)],
        check=True, capture_output=True, timeout=110,
    )  # fmt: skip
    document = ElementTree.parse(path.with_suffix(".fods"))
    return [list(map(read_row, sheet.iter(f"{TABLE}table-row")))
            for sheet in document.iter(f"{TABLE}table")]  # fmt: skip


def read_row(row: ElementTree.Element) -> list[Cell]:
    cells: list[Cell] = []
    for element in row.iter(f"{TABLE}table-cell"):
        text = "\n".join(map(read_text, element.iter(f"{TEXT}p")))
        times = int(element.get(f"{TABLE}number-columns-repeated", "1")) if text else 1
        cells += [Cell(text, f"{TABLE}formula" in element.attrib)] * times
    return cells


def read_text(element: ElementTree.Element) -> str:
    marks = {f"{TEXT}s": " ", f"{TEXT}tab": "\t", f"{TEXT}line-break": "\n"}
    mark = marks.get(element.tag, "") * int(element.get(f"{TEXT}c", "1"))
    inner = "".join(read_text(child) + (child.tail or "") for child in element)
    return mark + (element.text or "") + inner


def formulas_in(sheets: list[list[list[Cell]]]) -> list[str]:
    return [cell.text for sheet in sheets for row in sheet for cell in row if cell.is_formula]


@pytest.fixture(scope="module")
def report() -> Report:
    cookies = [
        {"name": name, "domain": name, "path": name, "category": name, "vendor": name,
         "description": name, "cookie_duration": name, "same_site": name, "source": name,
         "iab_purposes": [name, name], "set_after_accept": False}
        for name in NAMES
    ]  # fmt: skip
    base = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "=1+1", "status": "=1+1"}
    return assess(
        msgspec.convert({**base, "cookies": cookies}, Scan),
        scan_sha256="ab" * 32,
        pack=load_pack("eu-baseline"),
        bounds=Bounds(max_cookies=50_000, max_string_bytes=8192),
    )


@pytest.mark.parametrize("separators", SEPARATORS.values(), ids=SEPARATORS)
def test_no_cell_of_the_table_is_computed(tmp_path, report, separators):
    path = tmp_path / "report.csv"
    path.write_bytes(render_csv(report))
    assert formulas_in(open_in_libreoffice(path, separators)) == []


def test_the_table_reads_as_it_was_written(tmp_path, report):
    path = tmp_path / "report.csv"
    path.write_bytes(render_csv(report))
    [sheet] = open_in_libreoffice(path)
    written = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))
    rows = [row for row in sheet if row and row[0].text]
    assert len(rows) == len(written) == 1 + len(NAMES)
    for row, wanted in zip(rows, written, strict=True):
        told = [cell.text for cell in row[: len(wanted)]]
        assert told[1:4] == [text.replace("\r", "\n") for text in wanted[1:4]]


def test_no_cell_of_the_workbook_is_computed_and_all_read_as_written(tmp_path, report):
    path = tmp_path / "report.xlsx"
    path.write_bytes(render_xlsx(report))
    sheets = open_in_libreoffice(path)
    assert formulas_in(sheets) == []
    written = openpyxl.load_workbook(path)["Inventory"]
    names = [row[1] for row in written.iter_rows(values_only=True)]
    assert len(names) == 1 + len(NAMES)
    assert [row[1].text for row in sheets[2] if len(row) > 1] == names


@pytest.mark.parametrize("separators", SEPARATORS.values(), ids=SEPARATORS)
def test_without_the_guard_the_table_would_be_computed(tmp_path, separators):
    path = tmp_path / "control.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["name"], *([name] for name in NAMES)])
    assert "2" in formulas_in(open_in_libreoffice(path, separators))


def test_a_formula_in_a_workbook_would_be_found(tmp_path):
    workbook = openpyxl.Workbook()
    workbook.active.append(["=1+1"])
    workbook.save(tmp_path / "control.xlsx")
    assert formulas_in(open_in_libreoffice(tmp_path / "control.xlsx")) == ["2"]
