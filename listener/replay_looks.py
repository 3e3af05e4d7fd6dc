"""What the ledger says of a page of items, asked for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from listener.replay_items import Item
from schemas.replays import Skip
from store.letters import letters_among
from store.replayed import Known, find_known, look_up

OTHER_EVENT = (
    "its scan is in the ledger by another event, whose word stands; discard it if that is right"
)


@dataclass(frozen=True, slots=True)
class Look:
    """One item with what is known of it.  ``skip`` and ``refused`` are what ends it here."""

    item: Item
    known: Known | None
    skip: Skip | None = None
    refused: str | None = None


def look_at(connection: Connection, items: Sequence[Item], replay_id: str | None) -> list[Look]:
    """Look the items up, in a few queries.  Raises LedgerUnavailable."""
    decoded = [item.decoded for item in items if item.decoded is not None]
    found = iter(find_known(connection, [entry.event for entry in decoded]))
    numbers = [next(found) if item.decoded is not None else item.event_pk for item in items]
    known = look_up(connection, {number for number in numbers if number is not None}, replay_id)
    letters = _letters(connection, items)
    return [
        _look(item, None if number is None else known.get(number), letters)
        for item, number in zip(items, numbers, strict=True)
    ]


def _look(item: Item, known: Known | None, letters: set[tuple[str, str]]) -> Look:
    if item.skip is not None:
        return Look(item, None, skip=item.skip)
    if item.listeners and known is None:
        return Look(item, None, skip=Skip.LISTENERS)
    if _place(item) in letters and known is None:
        return Look(item, None, skip=Skip.DEAD_LETTER)
    if item.refused is not None:
        return Look(item, None, refused=item.refused)
    return Look(item, known)


def _letters(connection: Connection, items: Sequence[Item]) -> set[tuple[str, str]]:
    """Places in a stream that dead letters came from; not asked for letters themselves."""
    by_stream: dict[str, set[str]] = {}
    for item in items:
        place = _place(item)
        if place is not None:
            by_stream.setdefault(place[0], set()).add(place[1])
    return {
        (stream, entry_id)
        for stream, entry_ids in by_stream.items()
        for entry_id in letters_among(connection, stream, entry_ids)
    }


def _place(item: Item) -> tuple[str, str] | None:
    """The entry of an item that came from a stream."""
    stream = item.position.get("stream")
    return None if stream is None else (str(stream), str(item.position["entry"]))
