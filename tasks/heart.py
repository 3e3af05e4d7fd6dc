"""The heart of a process: its loop says here that it came round.

To be called by the loop that does the work and by nothing else.  It must never
stop that loop: a disk that is full, or a Redis that is away, is logged once.
Under systemd the same beats make the part ready and feed its watchdog.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import structlog

from schemas.errors import StreamUnavailable
from schemas.settings import Settings
from store.heartbeats import (
    HOLDS_S,
    Heartbeat,
    clear_up,
    process_start,
    remove_heartbeat,
    write_heartbeat,
)
from tasks.presence import Presence
from tasks.sd_notify import notify

log = structlog.get_logger("tasks.heart")

MIGRATION_S = 3600.0
"""How long a migration of a large ledger may take without a heartbeat."""

FILE_EVERY_S = 1.0
NOTE_EVERY_S = 10.0
NOTE_AGAIN_S = 60.0
"""After Redis did not answer: a loop is not to wait for it at every turn."""


class Heart:
    """One process's heart.  Not safe between threads; a fork of the process has none.

    ``clock`` gives seconds since 1970, ``monotonic`` seconds that only pass.
    """

    def __init__(
        self,
        part: str,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = settings.heartbeat_folder
        self._clock = clock
        self._monotonic = monotonic
        self._presence = Presence(settings)
        self._pid = os.getpid()
        self._last = Heartbeat(
            part, socket.gethostname(), self._pid, process_start(self._pid), 0.0, 0.0
        )
        self._write_at = self._note_at = monotonic()
        self._has_failed = False
        self._notify_socket = settings.notify_socket
        self._is_unheard = False
        try:
            clear_up(self._folder, part, clock())
        except OSError as error:
            self._say_once(error)

    def beat(self, waits_for: str | None = None, holds_s: float = HOLDS_S) -> None:
        """The loop came round, and will again within ``holds_s``.

        At most once a second something is written, and at once where what it says
        has changed.
        """
        now = self._monotonic()
        said = (waits_for, holds_s)
        if now < self._write_at and said == (self._last.waits_for, self._last.holds_s):
            return
        if os.getpid() != self._pid:
            return  # a fork's turns are not its parent's
        self._write_at = now + FILE_EVERY_S
        self._last = self._last._replace(at=self._clock(), waits_for=waits_for, holds_s=holds_s)
        try:
            write_heartbeat(self._folder, self._last)
            self._has_failed = False
        except OSError as error:
            self._say_once(error)
        self._notify(
            "READY=1",
            "WATCHDOG=1",
            f"WATCHDOG_USEC={int(holds_s * 1_000_000)}",
            f"STATUS={'Works' if waits_for is None else f'Waits for {waits_for}'}",
        )
        if now >= self._note_at and waits_for is None:
            self._note(now)

    def stop(self) -> None:
        """The process stops as it should: nobody is to miss it."""
        if os.getpid() != self._pid:
            return
        self._notify("STOPPING=1")
        try:
            remove_heartbeat(self._folder, self._last)
            self._presence.forget(self._last.part, self._last.host, self._pid)
        except (OSError, StreamUnavailable) as error:
            log.info("heartbeat_left_behind", error=str(error))
        self._presence.close()

    def _notify(self, *words: str) -> None:
        """The watchdog holds this loop to its own word: a long migration or task is announced."""
        try:
            notify(self._notify_socket, *words)
        except OSError as error:
            if not self._is_unheard:
                log.error("systemd_not_notified", error=str(error))
            self._is_unheard = True

    def _note(self, now: float) -> None:
        try:
            self._presence.note(self._last.part, self._last.host, self._pid)
            self._note_at = now + NOTE_EVERY_S
        except StreamUnavailable as error:
            self._note_at = now + NOTE_AGAIN_S
            log.warning("presence_not_noted", error=str(error))

    def _say_once(self, error: OSError) -> None:
        if not self._has_failed:
            log.error("heartbeat_not_written", folder=str(self._folder), error=str(error))
        self._has_failed = True
