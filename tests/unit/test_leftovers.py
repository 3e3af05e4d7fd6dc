"""The daily look for what killed workers left half written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasks.leftovers import sweep_leftovers

HOUR = 3600


def test_leftovers_of_yesterday_go_and_a_put_under_way_stays(parts: Any, clock: Any) -> None:
    parts.artifacts.put("scan/report.en.csv", b"whole")
    folder: Path = parts.artifacts.folder
    ages = {"scan/report.en.pdf#1": 25 * HOUR, "scan/report.en.pdf#2": 23 * HOUR}
    for name, age in ages.items():
        (folder / name).write_bytes(b"half")
        written = clock().timestamp() - age
        os.utime(folder / name, (written, written))

    assert sweep_leftovers.apply().get() == {"swept": 1}
    assert {path.name for path in (folder / "scan").iterdir()} == {
        "report.en.csv",
        "report.en.pdf#2",
    }
    clock.forward(2 * HOUR)
    assert sweep_leftovers.apply().get() == {"swept": 1}
