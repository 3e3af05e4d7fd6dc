"""The floor of the workbook: XlsxWriter, one sheet of the inventory's values, nothing styled."""

from __future__ import annotations

import io

from xlsxwriter import Workbook  # type: ignore[import-untyped] # annotated, but says so nowhere

from benchmarks.floor_csv import COLUMNS


def write_xlsx(rows: list[list[object]]) -> bytes:
    """A head and ``rows``; a text is written as a text, whatever it looks like."""
    out = io.BytesIO()
    with Workbook(out, {"in_memory": True}) as workbook:
        sheet = workbook.add_worksheet()
        for y, row in enumerate([COLUMNS, *rows]):
            for x, value in enumerate(row):
                if isinstance(value, str):
                    sheet.write_string(y, x, value)
                elif value is not None:
                    sheet.write_number(y, x, value)
    return out.getvalue()
