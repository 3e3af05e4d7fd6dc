"""The floor of the CSV table: ``csv.writer`` and the shortest formula guard there is."""

from __future__ import annotations

import csv
import io
from enum import StrEnum

from schemas.reports import InventoryCookie, Report

COLUMNS = InventoryCookie.__struct_fields__

_FORMULA = frozenset("=+-@\t\r\n")


def list_values(report: Report) -> list[list[object]]:
    """The values of every cookie, lists joined, booleans and kinds in words; untimed."""
    return [[_value(getattr(cookie, name)) for name in COLUMNS] for cookie in report.cookies]


def _value(value: object) -> object:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return " ".join(value)
        case StrEnum():
            return value.value
        case _:
            return value


def write_csv(rows: list[list[object]]) -> bytes:
    """A head and ``rows``; a text that a spreadsheet would run gets an apostrophe."""
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(COLUMNS)
    table.writerows(
        ["'" + value if type(value) is str and value[:1] in _FORMULA else value for value in row]
        for row in rows
    )
    return out.getvalue().encode()
