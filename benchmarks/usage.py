"""CPU seconds and peak memory of process trees, as the kernel counts them.  Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user and system) so far, and the largest resident sizes, summed, in MB."""

    cpu_s: float
    peak_mb: float


def usage_of(root: int) -> Usage:
    """A process with its children, and with those that have ended and were waited for."""
    ticks, kilobytes = 0, 0
    for pid in tree(root):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # user and system; at the root also what its ended children had used
            ticks += sum(map(int, fields[11:15] if pid == root else fields[11:13]))
            kilobytes += _peak(pid)
    return Usage(ticks / TICKS, kilobytes / 1024)


def cpu_of(roots: Iterable[int]) -> float:
    """CPU seconds of several trees."""
    return sum(usage_of(root).cpu_s for root in roots)


def tree(root: int) -> list[int]:
    """A process and all below it."""
    found = [root]
    for pid in found:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0
