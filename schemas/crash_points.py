"""Named places where the fault suite kills a process, compiled in and off by default.

Each name is a crash window that some prose beside the code explains.  With
``SCANHERALD_CRASH_DIR`` set, a process that reaches a point takes one token of
that point from the folder, if there is one, and kills itself as ``kill -9``
would: no handler runs, no buffer is flushed.  Unset, a point is one comparison.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from enum import StrEnum
from pathlib import Path

FIRED = "fired"
"""The subfolder where used tokens lie: how often a point was hit."""


class CrashPoint(StrEnum):
    """What has happened, and what has not, when the process dies here."""

    LISTENER_READ = "listener.read"
    """A batch was read; nothing of it is recorded."""
    LISTENER_COMMITTING = "listener.committing"
    """RECORD is written, not committed."""
    LISTENER_RECORDED = "listener.recorded"
    """RECORD is committed; nothing is dispatched."""
    HEADER_PUBLISHED = "dispatch.header_published"
    """One more task that renders is published; a token may skip the first ones."""
    LISTENER_DISPATCHED = "listener.dispatched"
    """All is published; the ledger does not say so."""
    LISTENER_MARKED = "listener.marked"
    """The ledger says dispatched; nothing is acknowledged."""
    FETCH_RECORDED = "fetch.recorded"
    """A dataref's data is recorded; the rest is not dispatched."""
    RENDER_COUNTED = "render.counted"
    """A start of rendering is counted; nothing is rendered."""
    RENDER_RENDERED = "render.rendered"
    """Bytes are made; nothing is in the store."""
    RENDER_PUT = "render.put"
    """The artifact is in the store; the ledger does not know."""
    RENDER_SAVED = "render.saved"
    """The ledger knows the artifacts of a task; it has not returned, or not settled the run."""
    BODY_SETTLING = "body.settling"
    """The run's end and its deliveries are written, not committed."""
    BODY_SETTLED = "body.settled"
    """The run's end is committed; no delivery is started."""
    BULK_PLANNED = "bulk.planned"
    """One more batch of a bulk notification is planned; its deliveries are not started."""
    DELIVERY_LEASED = "delivery.leased"
    """A try is leased; nothing is sent."""
    DELIVERY_SENT = "delivery.sent"
    """The other side has the message; the ledger does not know."""
    DELIVERY_SETTLED = "delivery.settled"
    """The ledger knows; the task is not acknowledged."""
    DELIVERY_PUT_OFF = "delivery.put_off"
    """A try that has to wait is noted; its message is not published."""
    DELIVERY_PUT_BACK = "delivery.put_back"
    """A failed try is noted; its retry is not published."""
    ENDPOINT_SETTLING = "endpoint.settling"
    """Some of what waited for a disabled address is ended; no alert about it is published."""
    SWEEP_CLAIMED = "sweep.claimed"
    """Overdue work is claimed; nothing of it is published."""
    REPLAY_COMMITTING = "replay.committing"
    """A step of a replay is written with its runs, not committed."""
    REPLAY_RECORDED = "replay.recorded"
    """A step of a replay is committed; none of its runs is dispatched."""
    REPLAY_DISPATCHED = "replay.dispatched"
    """A step's runs are published; the ledger does not say so."""


_folder: Path | None = None
_passes: Counter[str] = Counter()


def arm(folder: Path | None) -> None:
    """Look for tokens in ``folder`` from now on, also in forked children; None turns it off."""
    global _folder
    _folder = folder
    _passes.clear()


def crash_here(point: str) -> None:
    """Die if somebody laid a token for ``point``."""
    if take_token(point):
        os.kill(os.getpid(), signal.SIGKILL)


def take_token(point: str) -> bool:
    """Use up a token for ``point``, if there is one for this process's pass."""
    if _folder is None:
        return False
    _passes[point] += 1
    for token in sorted(_folder.glob(f"{point}.*.[0-9]*")):
        try:
            if _passes[point] <= int(token.read_text()):
                continue
            token.rename(_folder / FIRED / f"{token.name}.{os.getpid()}")
        except FileNotFoundError:
            continue  # another process took it
        return True
    return False


def lay_token(folder: Path, point: str, number: int = 1, *, skip: int = 0) -> None:
    """Let ``number`` processes die at ``point``, each at its pass ``skip`` + 1."""
    (folder / FIRED).mkdir(parents=True, exist_ok=True)
    for count in range(number):
        token = folder / f"{point}.{skip}.{count}"
        whole = token.with_suffix(".new")
        whole.write_text(str(skip))
        whole.rename(token)  # no process meets half a token


def fired(folder: Path, point: str) -> int:
    """How many processes died at ``point``."""
    return len(list((folder / FIRED).glob(f"{point}.*")))
