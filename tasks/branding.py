"""The operator's brand file becomes a Presentation, once, where a process starts.

A TOML file, with the files it names beside it::

    organisation = "Muster Data Protection Office"
    footer = "Confidential"
    accent = "#7a1f5c"
    cover = true
    logo = "logo.png"
    html_template = "report.html.j2"
    stylesheet = "brand.css"

Every key may be left out.  What would spoil each report later is refused here,
by file and key, before the first event is read.
"""

from __future__ import annotations

import io
import re
import struct
import unicodedata
import warnings
from pathlib import Path

import msgspec

from schemas.errors import InvalidSettings, RenderFailed
from schemas.presentation import PLAIN, Presentation
from schemas.reports import Format
from schemas.scans import decode_scan

MAX_FILE_BYTES = 64 * 1024
MAX_LOGO_BYTES = 512 * 1024
MAX_LOGO_PIXELS = 4000
"""Of either side."""
MAX_TEXT_BYTES = 256 * 1024
"""Of the template and of the stylesheet."""
MAX_CHARACTERS = {"organisation": 120, "footer": 300}
"""What fits on a cover, and in one line at the foot of a page."""

SAMPLE_PACK = "eu-baseline"
SAMPLE = msgspec.json.encode(
    {
        "scan_id": "00000000-0000-4000-8000-000000000000",
        "domain": "example.org",
        "page_count": 1,
        "pages_visited": ["https://example.org/"],
        "cookies": [{"name": "a", "domain": "example.org", "category": "advertising",
                     "set_after_accept": False, "cookie_duration": "3 years"}],
        "storages": {"localStorage": {"b": "c"}},
    }
)  # fmt: skip
"""A scan with something for every section of a report, to try a brand on."""

KINDS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


class _Brand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written; paths are relative to its folder."""

    organisation: str = ""
    footer: str = ""
    accent: str = ""
    cover: bool = False
    logo: str = ""
    html_template: str = ""
    stylesheet: str = ""


def read_presentation(path: Path | None, *, csv_bom: bool = False) -> Presentation:
    """The Presentation that a brand file describes; without one the plain one.

    Reads the file and those it names.  Raises InvalidSettings that names file
    and key and says what to do.
    """
    if path is None:
        return msgspec.structs.replace(PLAIN, csv_bom=csv_bom)
    brand = _decode(path)
    for key in brand.__struct_fields__:
        _check_line(path, key, getattr(brand, key))
    if brand.accent and not _COLOUR.fullmatch(brand.accent):
        raise _refusal(
            path, "accent", f'{brand.accent!r} is no colour; write it as #rrggbb, such as "#1f3a5f"'
        )
    presentation = Presentation(
        organisation=brand.organisation.strip(),
        footer=brand.footer.strip(),
        accent=brand.accent.lower(),
        cover=brand.cover,
        logo=_read_logo(path, brand.logo),
        html_template=_read_template(path, brand.html_template),
        stylesheet=_read_text(path, "stylesheet", brand.stylesheet),
        csv_bom=csv_bom,
    )
    _try_out(path, presentation)
    return presentation


def _try_out(path: Path, presentation: Presentation) -> None:
    """Render a small report with it: an unknown name in a template shows only then."""
    from compliance.assess import Bounds, assess  # heavy, and few have a brand
    from compliance.rules import load_pack
    from renderers.registry import render

    scan = decode_scan(SAMPLE)
    bounds = Bounds(max_cookies=10, max_string_bytes=1024)
    pack = load_pack(SAMPLE_PACK)
    report = assess(scan, scan_sha256="0" * 64, pack=pack, previous=scan, bounds=bounds)
    for name in (Format.HTML, Format.PDF):
        try:
            render(report, name, presentation)
        except RenderFailed as error:
            raise InvalidSettings(f"brand file {path} spoils the {name} report: {error}") from error


def _decode(path: Path) -> _Brand:
    try:
        data = _read(path, MAX_FILE_BYTES)
    except OSError as error:
        raise InvalidSettings(
            f"SCANHERALD_BRANDING: cannot read {path}: {error.strerror}; "
            "name a readable TOML file, or none"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidSettings(
            f"brand file {path} is larger than {MAX_FILE_BYTES:,} bytes; "
            "name logo, template and stylesheet as files beside it"
        )
    try:
        return msgspec.toml.decode(data, type=_Brand)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        keys = ", ".join(_Brand.__struct_fields__)
        raise InvalidSettings(f"brand file {path}: {error}; its keys are: {keys}") from error


def _check_line(path: Path, key: str, value: object) -> None:
    if not isinstance(value, str):
        return
    for character in value:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise _refusal(
                path,
                key,
                f"holds the control character U+{ord(character):04X}; write one line of plain text",
            )
    most = MAX_CHARACTERS.get(key, len(value))
    if len(value) > most:
        raise _refusal(path, key, f"has {len(value):,} characters; shorten it to {most}")


def _read_logo(path: Path, name: str) -> bytes:
    data = _read_beside(path, "logo", name, MAX_LOGO_BYTES)
    if not data:
        return b""
    kind = next((kind for magic, kind in KINDS.items() if data.startswith(magic)), None)
    if kind is None:
        raise _refusal(path, "logo", f"{name} is neither PNG nor JPEG; save it as one of them")
    width, height = _decoded_size(path, name, data, kind)
    if max(width, height) > MAX_LOGO_PIXELS:
        raise _refusal(
            path,
            "logo",
            f"{name} has {width} × {height} pixels; "
            f"scale it down to {MAX_LOGO_PIXELS} on either side",
        )
    return data


def _decoded_size(path: Path, name: str, data: bytes, kind: str) -> tuple[int, int]:
    """Width and height; decoded whole where it is not too large, for half a logo draws none."""
    from PIL import Image  # heavy, and few have a logo

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is less
            with Image.open(io.BytesIO(data), formats=(kind,)) as image:
                if max(image.size) <= MAX_LOGO_PIXELS:
                    image.load()
                return image.size
    except (
        *(OSError, SyntaxError, ValueError, EOFError, struct.error),
        Image.DecompressionBombError,
    ) as error:
        raise _refusal(
            path, "logo", f"{name} cannot be decoded: {error}; save it again as PNG or JPEG"
        ) from error


def _read_template(path: Path, name: str) -> str:
    source = _read_text(path, "html_template", name)
    if source:
        from renderers.html_template import check_template  # heavy, and few have a template

        try:
            check_template(source)
        except InvalidSettings as error:
            raise _refusal(path, "html_template", f"{name}: {error}") from error
    return source


def _read_text(path: Path, key: str, name: str) -> str:
    data = _read_beside(path, key, name, MAX_TEXT_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refusal(
            path, key, f"{name} is not UTF-8 (byte {error.start:,}); save it as UTF-8"
        ) from error


def _read_beside(path: Path, key: str, name: str, most: int) -> bytes:
    """The bytes of a file that the brand file names; none where it names none."""
    if not name:
        return b""
    place = path.parent / name
    try:
        data = _read(place, most)
    except OSError as error:
        raise _refusal(
            path, key, f"cannot read {place}: {error.strerror}; give a path relative to this file"
        ) from error
    if not data:
        raise _refusal(path, key, f"{name} is empty; leave the key out for none")
    if len(data) > most:
        raise _refusal(path, key, f"{name} is larger than {most:,} bytes; make it smaller")
    return data


def _read(path: Path, most: int) -> bytes:
    """A file's bytes, or one more than ``most`` of them."""
    with path.open("rb") as file:
        return file.read(most + 1)


def _refusal(path: Path, key: str, why: str) -> InvalidSettings:
    return InvalidSettings(f"brand file {path}, {key}: {why}")
