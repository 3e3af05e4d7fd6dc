"""The reliability page speaks of what there is."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.crash_points import CrashPoint

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_it_names_every_crash_point_and_no_other() -> None:
    table = PAGE[PAGE.index("## Crash points") :]
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE)) == set(CrashPoint)


def test_every_test_it_names_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) >= 15
    for name in named:
        assert f"def {name}(" in code, name
