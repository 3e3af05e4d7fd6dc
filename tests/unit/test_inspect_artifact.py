"""Opening an artifact as its reader would finds what is wrong with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from cli.inspect_artifact import fault_in
from renderers.registry import RENDERERS
from schemas.reports import Format
from tasks.reports import render_formats


@pytest.fixture
def artifacts(parts: Any, make_scan: Any, record: Any, rows: Any) -> dict[str, Path]:
    """Every format of a scan of two cookies."""
    render_formats(parts, record(parts, make_scan()).run_id, list(Format))
    return {row["format"]: Path(row["uri"]) for row in rows(parts, "reports") if row["uri"]}


def fault(path: Path, name: Format, cookies: int = 2) -> str | None:
    return fault_in(path, name, hashlib.sha256(path.read_bytes()).hexdigest(), cookies)


@pytest.mark.parametrize("name", RENDERERS)
def test_a_sound_artifact_has_no_fault(artifacts: dict[str, Path], name: Format) -> None:
    assert fault(artifacts[name], name) is None


@pytest.mark.parametrize("name", [Format.JSON, Format.CSV, Format.XLSX])
def test_a_missing_cookie_is_counted(artifacts: dict[str, Path], name: Format) -> None:
    assert fault(artifacts[name], name, cookies=3) == "holds 2 cookies of 3"


@pytest.mark.parametrize("name", [Format.PDF, Format.HTML, Format.JSON, Format.XLSX])
def test_half_an_artifact_is_none(artifacts: dict[str, Path], name: Format) -> None:
    path = artifacts[name]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(fault(path, name)).startswith(("is no", "has no"))


def test_a_flipped_bit_in_a_workbook_is_found(artifacts: dict[str, Path]) -> None:
    path = artifacts[Format.XLSX]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert fault(path, Format.XLSX) is not None


def test_another_digest_is_told_first(artifacts: dict[str, Path]) -> None:
    path = artifacts[Format.CSV]
    assert fault_in(path, Format.CSV, "ab" * 32, 2) == "its SHA-256 is not the recorded one"
    assert str(fault_in(path / "x", Format.CSV, "", 2)).startswith("cannot be read")
