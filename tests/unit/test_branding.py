"""The operator's brand file: what it gives, and each refusal with file, key and what to do."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from schemas.errors import InvalidSettings
from schemas.presentation import PLAIN, Presentation
from tasks.branding import MAX_FILE_BYTES, MAX_LOGO_BYTES, MAX_TEXT_BYTES, read_presentation


def picture(kind: str = "PNG", size: tuple[int, int] = (8, 4), **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "#123456").save(out, kind, **options)
    return out.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its few bytes hold."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + picture()[33:]
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A brand file with these lines, and the files beside it."""

    def write(*lines: str, **files: bytes) -> Path:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        path = tmp_path / "brand.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def refused(path: Path) -> str:
    with pytest.raises(InvalidSettings) as caught:
        read_presentation(path)
    said = str(caught.value)
    assert str(path) in said
    return said


def test_without_a_file_the_presentation_is_the_plain_one() -> None:
    assert read_presentation(None) == PLAIN
    assert read_presentation(None, csv_bom=True) == Presentation(csv_bom=True)


def test_every_key_of_the_file_is_in_the_presentation(write: Any) -> None:
    path = write(
        'organisation = " Ämt für Datenschutz "',
        'footer = "Confidential · 機密"',
        'accent = "#7A1F5C"',
        "cover = true",
        'logo = "logo.png"',
        'stylesheet = "brand.css"',
        **{"logo.png": picture(), "brand.css": "\ufeffh1 { color: red }".encode()},
    )
    assert read_presentation(path, csv_bom=True) == Presentation(
        organisation="Ämt für Datenschutz",
        footer="Confidential · 機密",
        accent="#7a1f5c",
        cover=True,
        logo=picture(),
        stylesheet="h1 { color: red }",
        csv_bom=True,
    )


def test_an_empty_file_and_empty_values_are_plain(write: Any) -> None:
    assert read_presentation(write()) == PLAIN
    assert read_presentation(write('logo = ""', 'accent = ""', 'html_template = ""')) == PLAIN


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(1, 1), (4000, 3)])
def test_a_logo_is_taken_as_png_and_as_jpeg_whatever_its_name(
    write: Any, kind: str, size: tuple[int, int]
) -> None:
    data = picture(kind, size)
    assert read_presentation(write('logo = "logo"', logo=data)).logo == data


def test_a_logo_of_exactly_the_largest_size_is_taken(write: Any) -> None:
    data = picture("JPEG")
    data += bytes(MAX_LOGO_BYTES - len(data))
    assert read_presentation(write('logo = "logo"', logo=data)).logo == data


def test_files_are_found_beside_the_brand_file_and_not_where_the_process_runs(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('stylesheet = "a.css"', **{"a.css": b"b{}"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.css").write_bytes(b"i{}")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_presentation(path).stylesheet == "b{}"


def test_a_template_that_compiles_is_taken_as_it_is_written(write: Any) -> None:
    source = "<!doctype html><title>{{ report.identity.domain }}</title>"
    path = write('html_template = "mine.html.j2"', **{"mine.html.j2": source.encode()})
    assert read_presentation(path).html_template == source


def test_a_template_that_does_not_compile_is_refused_by_its_name(write: Any) -> None:
    said = refused(write('html_template = "mine.html.j2"', **{"mine.html.j2": b"{% if %}"}))
    assert "html_template: mine.html.j2: " in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('organization = "x"', ["`organization`", "its keys are: organisation, footer, accent"]),
        ("organisation = 7", ["Expected `str`, got `int`", "$.organisation"]),
        ('cover = "yes"', ["Expected `bool`, got `str`", "$.cover"]),
        ("csv_bom = true", ["`csv_bom`"]),
        ("[brand]", ["`brand`"]),
        ("footer = \ncover = true", ["Invalid value (at line 1"]),
        ('footer = "a"\nfooter = "b"', ["Cannot overwrite a value"]),
        (
            f'organisation = "{"x" * 121}"',
            ["organisation: has 121 characters", "shorten it to 120"],
        ),
        (f'footer = "{"x" * 301}"', ["footer: has 301 characters", "shorten it to 300"]),
        (r'organisation = "a\u0007b"', ["organisation: ", "U+0007", "one line of plain text"]),
        (r'footer = "a\nb"', ["footer: ", "U+000A"]),
        (r'footer = "a\u2028b"', ["footer: ", "U+2028"]),
        (r'logo = "a\u0000b"', ["logo: ", "U+0000"]),
        ('accent = "navy"', ["accent: 'navy' is no colour", "#1f3a5f"]),
        ('accent = "#12345"', ["accent: ", "#rrggbb"]),
        ('accent = "#1234567"', ["accent: "]),
        ('accent = "#12345g"', ["accent: "]),
        ('accent = "#123456;x"', ["accent: "]),
        ('accent = "#१२३४५६"', ["accent: "]),
        ('logo = "gone.png"', ["logo: cannot read", "gone.png", "relative to this file"]),
        ('logo = "."', ["logo: cannot read", "Is a directory"]),
        ('html_template = "gone.j2"', ["html_template: cannot read", "gone.j2"]),
        ('stylesheet = "gone.css"', ["stylesheet: cannot read", "gone.css"]),
    ],
)
def test_what_the_file_must_not_say_is_refused_by_key_with_what_to_do(
    write: Any, line: str, words: list[str]
) -> None:
    said = refused(write(line))
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty; leave the key out"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is neither PNG nor JPEG; save it as"),
        (b"GIF89a", "is neither PNG nor JPEG"),
        (picture("PNG") + bytes(MAX_LOGO_BYTES), "is larger than 524,288 bytes; make it smaller"),
        (picture("PNG")[:45], "cannot be decoded"),
        (picture("JPEG", (64, 64))[:400], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (b"\xff\xd8\xff" + bytes(50), "cannot be decoded"),
        (picture("PNG", (4001, 1)), "has 4001 × 1 pixels; scale it down to 4000"),
        (picture("JPEG", (1, 4001)), "has 1 × 4001 pixels; scale it down to 4000"),
        (claiming(10_000, 10_000), "has 10000 × 10000 pixels"),
        (claiming(2**31 - 1, 2**31 - 1), "cannot be decoded"),
    ],
    ids=range(12),
)
def test_a_logo_that_no_report_could_show_is_refused(write: Any, data: bytes, words: str) -> None:
    said = refused(write('logo = "logo.png"', **{"logo.png": data}))
    assert "logo: logo.png " in said
    assert words in said


@pytest.mark.parametrize("key", ["stylesheet", "html_template"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"ab\xff", "is not UTF-8 (byte 2); save it as UTF-8"),
        (b" " * (MAX_TEXT_BYTES + 1), "is larger than 262,144 bytes"),
        (b"", "is empty"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused(
    write: Any, key: str, data: bytes, words: str
) -> None:
    said = refused(write(f'{key} = "file"', file=data))
    assert f"{key}: file {words}" in said


@pytest.mark.parametrize(("key", "content", "why"), [
    ("stylesheet", b"a{}</style><script>", "style"),
    ("html_template", b"one\n{{ report.nothing }}", "line 2"),
])  # fmt: skip
def test_a_brand_that_would_spoil_every_report_is_refused_at_the_start(
    write: Any, key: str, content: bytes, why: str
) -> None:
    path = write(f'{key} = "own.file"', **{"own.file": content})
    said = refused(path)
    assert str(path) in said
    assert "spoils the html report" in said
    assert why in said


def test_a_missing_brand_file_names_the_setting(tmp_path: Path) -> None:
    said = refused(tmp_path / "gone.toml")
    assert said.startswith("SCANHERALD_BRANDING: cannot read ")
    assert "No such file" in said


def test_a_brand_file_that_is_no_text_or_far_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "brand.toml"
    path.write_bytes(b'footer = "\xff"')
    assert "its keys are" in refused(path)
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert "larger than 65,536 bytes" in refused(path)
    path.write_bytes(b"footer = " + b"[" * 20_000)
    assert "its keys are" in refused(path)
