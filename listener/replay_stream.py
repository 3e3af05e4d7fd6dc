"""The streams as the source of a replay: entries that are still there, read by no group.

Looking changes nothing for the consumer group.  What the group has still to do,
unread or pending, is the listener's: recorded by a replay it would wake nobody,
and the listener would then take it for a repeat.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from listener.replay_items import PAGE_BYTES, PAGE_ITEMS, Item, Page, Position, decoded_item
from listener.stream import text, translated
from schemas.errors import InvalidSettings
from schemas.replays import Selection
from schemas.runs import Entry
from store.replayed import matches
from tasks import redis_server

ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")

TIMEOUT_S = 10.0

_PAGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {false} end
local group = false
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local fields = {}
    for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
    if fields['name'] == ARGV[1] then group = fields['last-delivered-id'] end
end
local answer, bytes, from = {group}, 0, ARGV[2]
while #answer <= tonumber(ARGV[4]) and bytes < tonumber(ARGV[5]) do
    local entry = redis.call('XRANGE', KEYS[1], from, ARGV[3], 'COUNT', 1)[1]
    if not entry then break end
    local id = entry[1]
    for _, text in ipairs(entry[2]) do bytes = bytes + #text end
    local pending = group and #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) or 0
    table.insert(answer, {id, entry[2], pending})
    from = '(' .. id
end
return answer
"""
"""XRANGE has no limit of bytes, and an entry may have 16 MiB: a page ends at the entry that
reaches its bytes.  In one step, so that no entry is acknowledged while it is looked up."""


class StreamSource:
    """Entries of the selection's streams, one stream after the other."""

    def __init__(self, client: Any, group: str, selection: Selection, max_bytes: int) -> None:
        self._redis = client
        self._group = group
        self._selection = selection
        self._max_bytes = max_bytes
        self._first = selection.first_entry or _edge(selection.since) or "-"
        self._last = _earlier(selection.last_entry, _edge(selection.until))

    def pages(self, after: Position | None) -> Iterator[Page]:
        """The pages behind an entry.  Raises StreamUnavailable."""
        streams = self._selection.streams
        begun = streams.index(after["stream"]) if after else 0
        for number, stream in enumerate(streams[begun:]):
            from_id = f"({after['entry']}" if after and number == 0 else self._first
            yield from self._pages_of(stream, from_id)

    def fraction(self, position: Position | None) -> float:
        """By the entries' times, stream by stream."""
        if position is None:
            return 0.0
        streams = self._selection.streams
        low, high = _milliseconds(self._first), _milliseconds(self._last)
        within = (_milliseconds(position["entry"]) - low) / max(1, high - low)
        return (streams.index(position["stream"]) + min(1.0, max(0.0, within))) / len(streams)

    def _pages_of(self, stream: str, from_id: str) -> Iterator[Page]:
        while True:
            with translated():
                answer = self._redis.eval_ro(
                    _PAGE, 1, stream, self._group, from_id, self._last, PAGE_ITEMS, PAGE_BYTES
                )
            if len(answer) < 2:
                return
            if from_id == "-":  # where the first entry is tells how far a later one is
                self._first = text(answer[1][0])
            last_id = text(answer[-1][0])
            items = [self._item(stream, answer[0], *raw) for raw in answer[1:]]
            yield Page(
                [item for item in items if self._is_selected(item)],
                {"stream": stream, "entry": last_id},
            )
            from_id = f"({last_id}"

    def _item(
        self, stream: str, delivered: bytes | None, raw_id: bytes, flat: list[bytes], pending: int
    ) -> Item:
        entry_id = text(raw_id)
        waiting = delivered is None or order(entry_id) > order(text(delivered))
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return decoded_item(
            f"{stream} {entry_id}",
            {"stream": stream, "entry": entry_id},
            Entry(stream, entry_id, fields),
            self._max_bytes,
            listeners=waiting or bool(pending),
        )

    def _is_selected(self, item: Item) -> bool:
        """What cannot be decoded is nothing that a filter could be asked of, and is counted."""
        return item.decoded is None or matches(self._selection, item.decoded.event)


def open_client(url: str) -> Any:
    """A client for looking; nothing is connected yet."""
    return redis_server.open_client(url, timeout_s=TIMEOUT_S, is_patient=True)


def read_entry(client: Any, stream: str, entry_id: str) -> dict[bytes, bytes] | None:
    """The fields of an entry, or None if it is not there any more.  Raises StreamUnavailable."""
    with translated():
        found = client.xrange(stream, min=entry_id, max=entry_id, count=1)
    return found[0][1] if found else None


def server_time_ms(client: Any) -> int:
    """The clock that makes entry ids, in milliseconds.  Raises StreamUnavailable."""
    with translated():
        seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def check_entry_id(given: str, option: str) -> str:
    """An entry id.  Raises InvalidSettings."""
    if not ENTRY_ID.fullmatch(given):
        raise InvalidSettings(f"{option} {given!r} is no entry id, such as 1767225600000-0")
    return given


def order(entry_id: str) -> tuple[int, ...]:
    """Sorts ids as the stream does."""
    return tuple(map(int, entry_id.split("-")))


def _edge(moment: datetime | None) -> str | None:
    """All ids of a millisecond, as XRANGE takes it at either end."""
    return None if moment is None else str(max(0, int(moment.timestamp() * 1000)))


def _earlier(one: str | None, other: str | None) -> str:
    given: Sequence[str] = [item for item in (one, other) if item is not None]
    return min(given, key=_milliseconds, default="+")


def _milliseconds(entry_id: str) -> int:
    head = entry_id.split("-", 1)[0]
    return int(head) if head.isdigit() else 0
