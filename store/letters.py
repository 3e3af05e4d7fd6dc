"""Dead letters one by one: read again, found sound, refused anew, or discarded with a trace.

A letter is an entry that never became an event.  An event whose run died is
none: its run is taken up again, or replayed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, delete, select, update

from schemas.errors import NotFound
from store.events import DEAD_SOURCE, raw_size_and_digest
from store.ledger import plain, unpack
from store.tables import events, runs

_fields = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class Letter:
    """An entry that was set aside.

    ``fields`` are what was kept of it, ``whole`` whether that is all of it, to
    the byte.  ``looks`` is above 1 where looking at it killed the listener.
    """

    number: int
    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]
    whole: bool
    size: int
    sha256: str
    reason: str | None
    looks: int
    recorded_at: datetime

    def is_original(self, fields: Mapping[bytes, bytes]) -> bool:
        """Whether these are the fields that were set aside."""
        return raw_size_and_digest(fields) == (self.size, self.sha256)


def page_of_letters(
    connection: Connection, after: int, limit: int, numbers: Sequence[int] = ()
) -> list[Letter]:
    """Letters behind this number, oldest first; of ``numbers`` alone, where any are given."""
    query = (
        select(events)
        .where(
            events.c.event_pk > after,
            events.c.outcome == "dead",
            events.c.source.startswith(DEAD_SOURCE),
        )
        .order_by(events.c.event_pk)
        .limit(limit)
    )
    if numbers:
        query = query.where(events.c.event_pk.in_(numbers))
    return [_letter(row) for row in connection.execute(query).mappings()]


def load_letter(connection: Connection, number: int) -> Letter:
    """One letter.  Raises NotFound, which says what the number is instead."""
    found = page_of_letters(connection, number - 1, 1, [number])
    if not found:
        raise NotFound(_what_it_is(connection, number))
    return found[0]


def check_dead(connection: Connection, number: int) -> None:
    """Raises NotFound for what is neither a letter nor an event whose run is dead."""
    dead = select(events.c.event_pk).where(events.c.event_pk == number, events.c.outcome == "dead")
    if connection.execute(dead).first() is None:
        raise NotFound(_what_it_is(connection, number))


def check_letters(connection: Connection, numbers: Sequence[int]) -> None:
    """Raises NotFound for the first number that is no letter."""
    for number in numbers:
        load_letter(connection, number)


def letters_among(connection: Connection, stream: str, entry_ids: Collection[str]) -> set[str]:
    """Which of these entries of a stream were set aside, be they discarded since."""
    return set(
        connection.execute(
            select(events.c.entry_id).where(
                events.c.stream == stream,
                events.c.entry_id.in_(entry_ids),
                events.c.source.startswith(DEAD_SOURCE),
            )
        ).scalars()
    )


def remove_letter(connection: Connection, number: int) -> None:
    """Take a letter back, in the transaction that records its event."""
    connection.execute(
        delete(events).where(
            events.c.event_pk == number,
            events.c.outcome == "dead",
            events.c.source.startswith(DEAD_SOURCE),
        )
    )


def refuse_again(connection: Connection, number: int, reason: str) -> None:
    """Keep a letter, with the reason that it has now."""
    connection.execute(
        update(events)
        .where(events.c.event_pk == number, events.c.outcome == "dead")
        .values(reason=plain(reason))
    )


def discard_letter(connection: Connection, number: int, why: str, now: datetime) -> None:
    """Give a letter up for good: its content goes, its row stays and says why.

    The row is what accounts for the entry.  Raises NotFound.
    """
    letter = load_letter(connection, number)
    connection.execute(
        update(events)
        .where(events.c.event_pk == number)
        .values(
            outcome="discarded",
            payload=None,
            reason=plain(f"discarded on {now:%Y-%m-%d %H:%M} UTC: {why} (was: {letter.reason})"),
        )
    )


def _what_it_is(connection: Connection, number: int) -> str:
    row: RowMapping | None = (
        connection.execute(
            select(events.c.outcome, events.c.source, events.c.reason, runs.c.run_id)
            .outerjoin(runs, runs.c.event_pk == events.c.event_pk)
            .where(events.c.event_pk == number)
            .order_by(runs.c.created_at.desc())
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return f"no dead letter {number}; see: scanherald dead-letters"
    if row["outcome"] == "discarded":
        return f"dead letter {number} was {row['reason']}"
    if row["outcome"] == "dead":
        return (
            f"{number} is an event whose run is dead, no dead letter; once its cause is mended: "
            f"scanherald runs retry {row['run_id']}"
        )
    return f"{number} is an event and no dead letter; see: scanherald replay --help"


def _letter(row: RowMapping | Mapping[str, Any]) -> Letter:
    kept = {} if row["payload"] is None else _fields.decode(unpack(row["payload"]))
    fields = {
        key.encode("utf-8", "replace"): value.encode("utf-8", "replace")
        for key, value in kept.items()
    }
    return Letter(
        number=row["event_pk"],
        stream=row["stream"],
        entry_id=row["entry_id"],
        fields=fields,
        whole=raw_size_and_digest(fields) == (row["payload_size"], row["payload_sha256"]),
        size=row["payload_size"],
        sha256=row["payload_sha256"],
        reason=row["reason"],
        looks=row["seen"],
        recorded_at=row["recorded_at"],
    )
