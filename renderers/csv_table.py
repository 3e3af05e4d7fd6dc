"""The CSV table: one row per cookie, for spreadsheets and pipelines (RFC 4180, UTF-8).

A spreadsheet takes a cell for a formula by its first character; such a text gets
a leading apostrophe, which spreadsheets hide and scripts can strip.
"""

from __future__ import annotations

import csv
import io
import unicodedata

from renderers.visible import is_hidden
from schemas.reports import InventoryCookie, Report

COLUMNS = (*InventoryCookie.__struct_fields__,)
"""The fields of the inventory, in the order of the model."""

_FORMULA = frozenset("=+-@")
_LINE_STARTS = frozenset("\t\r\n")
_ALLOWED = frozenset("\t\r\n")


def render_csv(report: Report) -> bytes:
    """A header row and one row per cookie; lists are joined by spaces, unknown is empty."""
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(COLUMNS)
    table.writerows(
        [_cell(getattr(cookie, column)) for column in COLUMNS] for cookie in report.cookies
    )
    return out.getvalue().encode("utf-8")


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case tuple():
            return guard(" ".join(value))
        case _:
            return guard(str(value))


def guard(text: str) -> str:
    """``text`` that no spreadsheet runs: formula starts disarmed, hidden characters escaped."""
    plain = text.isascii() and text.isprintable()
    if not text or (plain and text[0].isalnum()):
        return text
    shown = text if plain else "".join(map(_escape, text))
    return f"'{shown}" if _starts_formula(text) else shown


def _starts_formula(text: str) -> bool:
    if text[0] in _LINE_STARTS:
        return True
    # NFKC folds the full-width and small variants that spreadsheets accept too.
    start = next((char for char in text if not (char.isspace() or is_hidden(ord(char)))), "")
    return unicodedata.normalize("NFKC", start)[:1] in _FORMULA if start else False


def _escape(char: str) -> str:
    code = ord(char)
    if char in _ALLOWED or not is_hidden(code) or unicodedata.category(char) == "Zs":
        return char
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
