"""Opens an artifact as its reader would, and says what is wrong with it."""

from __future__ import annotations

import csv
import hashlib
import io
from html.parser import HTMLParser
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import msgspec
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from schemas.reports import Format, Report


def fault_in(path: Path, name: Format, sha256: str, cookies: int) -> str | None:
    """None if the file exists, has this digest, opens, and holds so many cookies."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if hashlib.sha256(data).hexdigest() != sha256:
        return "its SHA-256 is not the recorded one"
    return _OPENERS[name](data, cookies)


def _pdf(data: bytes, _cookies: int) -> str | None:
    try:
        pages = PdfReader(io.BytesIO(data), strict=True).pages
        return None if pages and pages[0].extract_text().strip() else "has no readable page"
    except PyPdfError as error:
        return f"is no PDF: {error}"


class _Elements(HTMLParser):
    """Counts elements by name."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: set[str] = set()

    def handle_endtag(self, tag: str) -> None:
        """Note an element that was closed."""
        self.ended.add(tag)


def _html(data: bytes, _cookies: int) -> str | None:
    page = _Elements()
    page.feed(data.decode("utf-8"))
    page.close()
    missing = {"html", "head", "body", "table"} - page.ended
    return f"is not whole: {', '.join(sorted(missing))}" if missing else None


def _json(data: bytes, cookies: int) -> str | None:
    try:
        found = len(msgspec.json.decode(data, type=Report).cookies)
    except msgspec.DecodeError as error:
        return f"is no report: {error}"
    return None if found == cookies else f"holds {found} cookies of {cookies}"


def _csv(data: bytes, cookies: int) -> str | None:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    found = len(rows) - 1
    return None if found == cookies else f"holds {found} cookies of {cookies}"


def _xlsx(data: bytes, cookies: int) -> str | None:
    try:
        with ZipFile(io.BytesIO(data)) as parts:
            if broken := parts.testzip():
                return f"is not whole: {broken}"
            inventory = parts.read("xl/worksheets/sheet3.xml")
    except (BadZipFile, KeyError) as error:
        return f"is no workbook: {error}"
    found = inventory.count(b"<row ") - 1
    return None if found == cookies else f"holds {found} cookies of {cookies}"


_OPENERS = {
    Format.PDF: _pdf,
    Format.HTML: _html,
    Format.JSON: _json,
    Format.CSV: _csv,
    Format.XLSX: _xlsx,
}
