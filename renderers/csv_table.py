"""The CSV table: one row per cookie, for spreadsheets and pipelines (RFC 4180, UTF-8).

A spreadsheet takes a cell for a formula by its first character; such a text gets
a leading apostrophe, which says "text" to spreadsheets and which scripts can strip.
"""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter
from typing import Any

import msgspec

from renderers.visible import is_hidden, is_visible
from schemas.presentation import PLAIN, Presentation
from schemas.reports import InventoryCookie, Report

COLUMNS = (*InventoryCookie.__struct_fields__,)
"""The fields of the inventory, in the order of the model."""

ROWS_AT_ONCE = 1000

_FORMULA = frozenset("=+-@")
_SUSPECTS = _FORMULA | {" "}
_LINE_STARTS = frozenset("\t\r\n")
_ALLOWED = frozenset("\t\r\n")
_BREAKS = re.compile("([;\t\r\n])")

_ENDING = re.compile('[,"\r\n]')

_TYPES = {field.name: field.type for field in msgspec.structs.fields(InventoryCookie)}
_NUMBERS = (int | None, float | None)
_TRUTHS = (bool, bool | None)
_WORDS = {None: "", True: "true", False: "false"}


def render_csv(report: Report, presentation: Presentation = PLAIN) -> bytes:
    """A header row and one row per cookie; lists are joined by spaces, unknown is empty."""
    out = io.BytesIO()
    if presentation.csv_bom:
        out.write(codecs.BOM_UTF8)
    out.write(f"{','.join(COLUMNS)}\r\n".encode())
    texts = _Texts()
    # Lazy columns keep all loops in C: Python only sees the values it has not seen before.
    columns = (_list_cells(name, report.cookies, texts) for name in COLUMNS)
    rows = map(",".join, zip(*columns, strict=True))
    while some := list(islice(rows, ROWS_AT_ONCE)):
        out.write("\r\n".join([*some, ""]).encode("utf-8"))
    return out.getvalue()


class _Texts(dict[Any, str]):
    """The cell of every text and every list of texts; one for each table, so that it stays small.

    Names, domains and purposes repeat from cookie to cookie.
    """

    def __missing__(self, value: str | tuple[str, ...] | None) -> str:
        text = value if isinstance(value, str) else " ".join(value or ())
        cell = self[value] = _quote(guard(text))
        return cell


def _number(value: float | None) -> str:
    # not remembered: 0.0 and -0.0, 1 and 1.0 would be one key, and are not one cell
    return "" if value is None else repr(value)


def _list_cells(name: str, cookies: Iterable[InventoryCookie], texts: _Texts) -> Iterable[str]:
    values = map(attrgetter(name), cookies)
    if _TYPES[name] is int:
        return map(str, values)
    if _TYPES[name] in _NUMBERS:
        return map(_number, values)
    return map(_WORDS.__getitem__ if _TYPES[name] in _TRUTHS else texts.__getitem__, values)


def _quote(text: str) -> str:
    """A cell as RFC 4180 writes it: in quotes where a comma, a quote or a break would end it."""
    if _ENDING.search(text) is None:
        return text
    return '"' + text.replace('"', '""') + '"'


def guard(text: str) -> str:
    """``text`` that no spreadsheet runs: formula starts disarmed, hidden characters escaped.

    A spreadsheet set to semicolons or tabs, as in half of Europe, breaks the text
    there and takes what follows for a cell: such a start is disarmed too.
    """
    if text.isascii() and text.isprintable() and text[:1] not in _SUSPECTS and ";" not in text:
        return text
    if _BREAKS.search(text) is None:
        return _disarm(text)
    line_start = "'" if text[0] in _LINE_STARTS else ""
    return line_start + "".join(map(_disarm, _BREAKS.split(text)))


def _disarm(text: str) -> str:
    shown = text if is_visible(text) else "".join(map(_escape, text))
    return f"'{shown}" if _starts_formula(text) else shown


def _starts_formula(text: str) -> bool:
    # NFKC folds the full-width and small variants that spreadsheets accept too.
    # After a break that we do not make, a quote opens a cell and is no part of it.
    start = next((char for char in text if not _is_skipped(char)), "")
    return unicodedata.normalize("NFKC", start)[:1] in _FORMULA if start else False


def _is_skipped(char: str) -> bool:
    return char == '"' or char.isspace() or is_hidden(ord(char))


def _escape(char: str) -> str:
    code = ord(char)
    if char in _ALLOWED or not is_hidden(code) or unicodedata.category(char) == "Zs":
        return char
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
