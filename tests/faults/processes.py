"""What the kernel says of a process."""

from __future__ import annotations

import contextlib
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process has forked, such as a worker's pool; none once it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in found.split()]
    return []


def memory_mb(pid: int, field: str) -> float:
    """Resident memory in MB: ``VmRSS`` now, ``VmHWM`` at its largest.

    Raises FileNotFoundError or ProcessLookupError for a process that is gone.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) / 1024
