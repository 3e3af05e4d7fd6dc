"""What a replay's source hands over: items in a fixed order, each with its place in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from listener.decode import decode_batch
from schemas.replays import Skip
from schemas.runs import DecodedEntry, Entry

PAGE_ITEMS = 200
PAGE_BYTES = 1024 * 1024
"""A page ends at the item that reaches either."""

Position: TypeAlias = dict[str, Any]
"""A place in a source, as JSON: what comes after it has not been selected yet."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to look at.

    An event of the ledger by its number, or a decoded entry that may be one, or
    ``refused``: what cannot be decoded, and why.  ``letter`` is the number of the
    dead letter it was.  ``listeners``: the listener has it still to do.
    """

    name: str
    position: Position
    event_pk: int | None = None
    decoded: DecodedEntry | None = None
    refused: str | None = None
    letter: int | None = None
    listeners: bool = False
    skip: Skip | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Items, and the place behind them and behind what was looked at and not selected."""

    items: Sequence[Item]
    position: Position


class Source(Protocol):
    """Where a replay's events come from."""

    def pages(self, after: Position | None) -> Iterator[Page]:
        """The pages behind a place, or from the beginning."""

    def fraction(self, position: Position | None) -> float:
        """How far a place is from the beginning, from 0 to 1."""


def decoded_item(name: str, position: Position, entry: Entry, max_bytes: int, **more: Any) -> Item:
    """An entry as an item: decoded as the listener does it, or refused."""
    decoded, dead = decode_batch([entry], max_bytes=max_bytes)
    if dead:
        return Item(name, position, refused=dead[0].reason, **more)
    return Item(name, position, decoded=decoded[0], **more)
