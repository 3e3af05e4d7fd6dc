"""Keeps a few processes running on one machine, and stops them in order.

A worker may end itself when its broker is lost, so something must start it
again.  Children are told by the kernel when this process dies, kill -9 included
(Linux), so that no orphan goes on writing behind the next start's back.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger("supervisor")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A part that ran so long has recovered: its next pause is the first again."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Part:
    """One process to keep running.  ``log_file`` None means our own standard error."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path | None = None
    grace_s: float = 40.0
    """How long it may take to stop before it is killed."""


class Supervisor:
    """Starts parts in order, restarts what ends, stops in reverse order.

    A part that ends again and again is started after a pause that doubles from
    ``FIRST_PAUSE_S`` up to ``longest_pause_s``.
    """

    def __init__(self, longest_pause_s: float = LONGEST_PAUSE_S) -> None:
        self._longest_pause_s = longest_pause_s
        self._parts: list[Part] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._pause: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def start(self, part: Part) -> None:
        """Start a part and keep it running from now on."""
        self._parts.append(part)
        self._pause[part.name] = FIRST_PAUSE_S
        self._spawn(part)

    def tend(self) -> None:
        """Start again what has ended, after a growing pause.  To be called often."""
        now = time.monotonic()
        for part in self._parts:
            process = self._running.get(part.name)
            if process is not None and process.poll() is not None:
                if now - self._started[part.name] > STEADY_S:
                    self._pause[part.name] = FIRST_PAUSE_S
                log.warning(
                    "part_ended",
                    part=part.name,
                    status=process.returncode,
                    restart_in_s=self._pause[part.name],
                )
                del self._running[part.name]
                self._due[part.name] = now + self._pause[part.name]
                self._pause[part.name] = min(self._longest_pause_s, self._pause[part.name] * 2)
            if part.name in self._due and now >= self._due[part.name]:
                del self._due[part.name]
                self._spawn(part)

    def pid(self, name: str) -> int | None:
        """The process id of a part that is running."""
        process = self._running.get(name)
        return None if process is None else process.pid

    def stop(self) -> None:
        """Ask each part to end, the last started first, and wait for it.

        What does not end within its grace is killed with its whole process group.
        """
        for part in reversed(self._parts):
            process = self._running.pop(part.name, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(part.grace_s)
            except subprocess.TimeoutExpired:
                log.warning("part_killed", part=part.name, after_s=part.grace_s)
            _kill_group(process.pid)
            process.wait()
            log.info("part_stopped", part=part.name)
        self._parts.clear()

    def _spawn(self, part: Part) -> None:
        target = None if part.log_file is None else part.log_file.open("ab")
        try:
            # its own session: Ctrl-C reaches us alone, and we stop the parts in order
            self._running[part.name] = subprocess.Popen(  # noqa: S603  # our own command lines
                list(part.command),
                env=dict(part.environment),
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=target,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        finally:
            if target is not None:
                target.close()
        self._started[part.name] = time.monotonic()
        log.info("part_started", part=part.name, pid=self._running[part.name].pid)


def _die_with_parent() -> None:
    """In the child, before exec: SIGTERM when the supervisor is gone."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group(leader: int) -> None:
    """Kill what is left of a part's process group, such as a worker's pool."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
