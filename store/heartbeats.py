"""Heartbeat files: when the loop of each process came round last, for whoever asks.

A part writes its file from the loop that does its work, so a loop that hangs
leaves it to grow old.  Files need no network: they are true while Redis and the
ledger are down.  Standard library alone, because ``scanherald health --live``
must answer in a tenth of a second.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from schemas.health import PartHealth, State, worst

PARTS = ("listener", "worker", "beat")

HOLDS_S = 28.0
"""A heartbeat is good for so long, unless it says that its loop will be away for longer.

A hung loop is to be seen within 30 s, and one that was written may be a second old.  A healthy
loop is away for 20 s at most: so long a SQLite writer waits for another one, and so long Celery
may need, 5 s at a time, to learn that none of its connections answers."""

FORGOTTEN_S = 86_400.0
"""Files of other hosts in a shared folder are deleted after this."""

_DATA_DIR = "scanherald_data_dir"
_FOLDER = "scanherald_heartbeats_dir"


class Heartbeat(NamedTuple):
    """What a process said of itself: at ``at`` (seconds since 1970) its loop came round.

    ``started`` tells a process from a later one with the same id; None where the
    system does not say.  ``waits_for`` names what it cannot go on without.
    """

    part: str
    host: str
    pid: int
    started: int | None
    at: float
    holds_s: float = HOLDS_S
    waits_for: str | None = None


def heartbeat_folder(environment: Mapping[str, str]) -> Path:
    """``Settings.heartbeat_folder`` of this environment, without what reading settings costs.

    A test holds the two together.
    """
    given = {name.lower(): value for name, value in environment.items()}
    if _FOLDER in given:
        return Path(given[_FOLDER])
    return Path(given.get(_DATA_DIR, "scanherald-data")) / "heartbeats"


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Replace the process's file in one step.  Raises OSError."""
    path = _path(folder, heartbeat)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(heartbeat._asdict()))
    unfinished.replace(path)


def remove_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """The process stops as it should.  Raises OSError."""
    _path(folder, heartbeat).unlink(missing_ok=True)


def clear_up(folder: Path, part: str, now: float) -> None:
    """A new process of a part takes the place of those that died.  Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        found = _read(path)
        if found is None:
            continue
        if found.host != socket.gethostname():
            is_over = now - found.at > FORGOTTEN_S
        else:
            is_over = found.part == part and is_gone(found)
        if is_over:
            path.unlink(missing_ok=True)


def read_heartbeats(folder: Path, part: str | None = None) -> list[Heartbeat]:
    """The heartbeats of this host's processes, of one part or of all.

    Of another host in a shared folder nothing is said: its process ids mean
    nothing here.
    """
    host = socket.gethostname()
    found = [_read(path) for path in sorted(folder.glob("*.json"))]
    return [
        heartbeat
        for heartbeat in found
        if heartbeat is not None and heartbeat.host == host and part in (None, heartbeat.part)
    ]


def is_gone(heartbeat: Heartbeat) -> bool:
    """Whether a process of this host ended without a clean stop, kill -9 among others."""
    try:
        os.kill(heartbeat.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody else's, and alive
    return heartbeat.started not in (None, process_start(heartbeat.pid))


def process_start(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine's start; None where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def judge_heartbeats(part: str, beats: Iterable[Heartbeat], now: float) -> PartHealth:
    """How a part is, by the heartbeats of its processes on this host."""
    judged = [_judge(heartbeat, now) for heartbeat in beats]
    if not judged:
        return PartHealth(
            part, State.DOWN, "no heartbeat on this machine", f"start it: scanherald {_VERBS[part]}"
        )
    alive = [found for found in judged if found.state is not State.DOWN]
    state = worst(found.state for found in judged)
    if alive and state is State.DOWN:
        state = State.DEGRADED  # others of the same part go on
    troubled = [found for found in judged if found.state is not State.HEALTHY] or judged
    says = "; ".join(found.says for found in troubled)
    if len(judged) > 1:
        says = f"{len(alive)} of {len(judged)} are alive: {says}"
    return PartHealth(part, state, says, next((found.do for found in troubled if found.do), ""))


def judge_liveness(part: str, beats: Iterable[Heartbeat], now: float) -> PartHealth:
    """The same, where waiting for another part's return is as good as working."""
    return judge_heartbeats(part, (beat._replace(waits_for=None) for beat in beats), now)


_VERBS = {"listener": "listen", "worker": "worker", "beat": "beat"}


def _judge(heartbeat: Heartbeat, now: float) -> PartHealth:
    part, pid = heartbeat.part, heartbeat.pid
    age = max(0.0, now - heartbeat.at)
    if is_gone(heartbeat):
        return PartHealth(
            part,
            State.DOWN,
            f"process {pid} ended without a clean stop; its last heartbeat is {age:.0f} s old",
            f"see why in its log, and start it: scanherald {_VERBS[part]}",
        )
    if age > heartbeat.holds_s:
        return PartHealth(
            part,
            State.DOWN,
            f"process {pid} hangs: its loop has not come round for {age:.0f} s",
            f"kill -9 {pid}; what supervises it starts it again, and nothing is lost",
        )
    if heartbeat.waits_for is not None:
        return PartHealth(
            part,
            State.DEGRADED,
            f"process {pid} is alive and waits for {heartbeat.waits_for}",
            f"see: scanherald health {_SEE.get(heartbeat.waits_for, '')}".rstrip(),
        )
    return PartHealth(part, State.HEALTHY, f"process {pid} came round {age:.1f} s ago")


_SEE = {"redis": "redis", "the broker": "broker", "the ledger": "ledger", "workers": "worker"}


def _path(folder: Path, heartbeat: Heartbeat) -> Path:
    return folder / f"{heartbeat.part}.{heartbeat.pid}.{heartbeat.host}.json"


def _read(path: Path) -> Heartbeat | None:
    """None for a file that was deleted meanwhile, or that is none of ours."""
    with suppress(OSError, ValueError, TypeError):
        heartbeat = Heartbeat(**json.loads(path.read_text()))
        if heartbeat.part in PARTS:
            return heartbeat
    return None
