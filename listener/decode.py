"""From raw entries to events, or to dead letters with a reason.  No I/O."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from schemas.errors import InvalidEvent
from schemas.events import decode_entry
from schemas.runs import DeadEntry, DecodedEntry, Entry

log = structlog.get_logger("listener.decode")

TRIMMED = (
    "the stream was trimmed before this entry was read and its content is gone; "
    "publish it again, and trim only below what every group has read"
)


def decode_batch(
    entries: Sequence[Entry], *, max_bytes: int
) -> tuple[list[DecodedEntry], list[DeadEntry]]:
    """Decode each entry by itself: one that breaks the contract takes no other along."""
    decoded: list[DecodedEntry] = []
    dead: list[DeadEntry] = []
    for entry in entries:
        if not entry.fields:
            dead.append(DeadEntry(entry, TRIMMED))
            continue
        try:
            decoded.append(DecodedEntry(entry, decode_entry(entry.fields, max_bytes=max_bytes)))
        except InvalidEvent as error:
            dead.append(DeadEntry(entry, str(error)))
        except Exception as error:  # a bug of ours must not stop the stream
            log.exception("decode_crashed", stream=entry.stream, entry_id=entry.entry_id)
            dead.append(
                DeadEntry(entry, f"internal error while decoding: {type(error).__name__}: {error}")
            )
    return decoded, dead
