"""One consumer of one consumer group on the event streams: every Redis Streams command we use.

Redis's errors are translated here, NOGROUP of a flushed server among them: the
loop answers every StreamUnavailable by joining the groups again.  Nothing in
this file decides what an entry means; it reads, claims and acknowledges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisError, ResponseError

from schemas.errors import StreamUnavailable
from schemas.runs import Entry
from tasks.redis_server import open_client, told

SOCKET_MARGIN_S = 3.0
"""How much longer than the blocking read the socket waits before it calls the server dead."""


TRIM_ROUNDS = 100
"""One XTRIM with ``~`` drops about 10,000 entries at most, so as not to block the server."""

_TRIM = """
local function key(id)  -- ids as text that sorts like them: numbers lose bits beyond 2^53
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #seq) .. seq
end
local function fields(flat)
    local named = {}
    for i = 1, #flat, 2 do named[flat[i]] = flat[i + 1] end
    return named
end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then return 0 end  -- nobody has read anything
local now = redis.call('TIME')  -- the clock that made the ids
local floor = string.format('%.0f-0', math.max(0, now[1] * 1000 + now[2] / 1000 - ARGV[1]))
for _, flat in ipairs(groups) do
    local group = fields(flat)
    local needed = {group['last-delivered-id']}  -- a group set back has unread ones before pending
    if group['pending'] > 0 then
        needed[2] = redis.call('XPENDING', KEYS[1], group['name'])[2]  -- the oldest one
    end
    for _, id in ipairs(needed) do
        if key(id) < key(floor) then floor = id end
    end
end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', floor)
"""
"""MINID keeps ``floor`` itself: one finished entry more than needed, and never one too few.

In one step on the server: a group made in between would have read nothing yet.
"""

_REMOVE_IDLE = """
local removed = {}
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local consumer = {}
    for i = 1, #flat, 2 do consumer[flat[i]] = flat[i + 1] end
    if consumer['name'] ~= ARGV[2] and consumer['pending'] == 0
            and consumer['idle'] >= tonumber(ARGV[3]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
        table.insert(removed, consumer['name'])
    end
end
return removed
"""


class EventStreams:
    """A consumer's connection.  Not safe between threads."""

    def __init__(
        self, url: str, streams: Sequence[str], group: str, consumer: str, *, block_ms: int
    ) -> None:
        self.streams = tuple(streams)
        self.group = group
        self.consumer = consumer
        self._block_ms = block_ms
        # Not patient: the loop reconnects, with jitter, and says so once.
        self._redis: Any = open_client(url, timeout_s=block_ms / 1000 + SOCKET_MARGIN_S)
        self._cursors: dict[str, str] = dict.fromkeys(self.streams, "-")

    def ensure_groups(self) -> None:
        """Create the group where it is missing, from the stream's very beginning.

        Never from ``$``: what was published before the first listener counts too.
        """
        for stream in self.streams:
            with translated():
                try:
                    self._redis.xgroup_create(stream, self.group, id="0", mkstream=True)
                except ResponseError as error:
                    if not str(error).startswith("BUSYGROUP"):
                        raise

    def read_own_pending(self, after: Mapping[str, str], count: int) -> list[Entry]:
        """Entries this consumer was given before and has not acknowledged, after these ids."""
        return self._read({stream: after.get(stream, "0") for stream in self.streams}, count, None)

    def read_new(self, count: int, acks: Sequence[Entry] = ()) -> list[Entry]:
        """Acknowledge ``acks`` and read at most ``count`` new entries per stream.

        Acknowledgements travel ahead of the read, in one round trip when none
        has to wait.  Blocks for at most the set time while there is nothing.
        """
        wanted = dict.fromkeys(self.streams, ">")
        if not acks:
            return self._read(wanted, count, self._block_ms)
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            _add_acks(pipe, self.group, acks)
            pipe.xreadgroup(self.group, self.consumer, wanted, count=count)
            return _entries(pipe.execute()[-1])

    def ack(self, entries: Sequence[Entry]) -> None:
        """Acknowledge entries that are in the ledger."""
        if not entries:
            return
        with translated(), self._redis.pipeline(transaction=False) as pipe:
            _add_acks(pipe, self.group, entries)
            pipe.execute()

    def claim_idle(self, min_idle_ms: int, count: int, max_bytes: int) -> list[Entry]:
        """Take over entries that a consumer has left pending for so long.

        One by one, until they weigh ``max_bytes``: what killed their consumer may
        have been their size.  The cursor moves on with each call: started at the
        first one every time, entries that cannot be finished would starve all
        later ones.  Entries whose payload was trimmed away come without fields.

        Not by XAUTOCLAIM, which forgets trimmed ones in the step that reports
        them: killed before RECORD, nobody would ever hear of them again.  Here
        they stay pending until they are recorded and acknowledged.
        """
        claimed: list[Entry] = []
        weight = 0
        for stream in self.streams:
            with translated():
                idle = self._redis.xpending_range(
                    stream, self.group, self._cursors[stream], "+", count, idle=min_idle_ms
                )
            self._cursors[stream] = "-"  # from the start again, unless there is more
            for number, row in enumerate(idle, start=1):
                entry_id = text(row["message_id"])
                entry = self._claim(stream, entry_id, min_idle_ms)
                if entry is not None:
                    claimed.append(entry)
                    weight += entry.weight
                if number == count or weight >= max_bytes:
                    self._cursors[stream] = f"({entry_id}"
                    break
        return claimed

    def _claim(self, stream: str, entry_id: str, min_idle_ms: int) -> Entry | None:
        """One idle entry, or None if another consumer was faster."""
        with translated():
            if not self._redis.xrange(stream, entry_id, entry_id, count=1):
                return Entry(stream, entry_id, {})
            found = self._redis.xclaim(stream, self.group, self.consumer, min_idle_ms, [entry_id])
            if found:
                return _entry(stream, found[0])
            left = self._redis.xpending_range(stream, self.group, entry_id, entry_id, 1)
        # Trimmed just now it is pending no more; the ledger tells it from a finished one.
        return None if left else Entry(stream, entry_id, {})

    def deliveries_of(self, entries: Sequence[Entry]) -> dict[tuple[str, str], int]:
        """How often each of these pending entries has been delivered."""
        counts: dict[tuple[str, str], int] = {}
        for entry in entries:
            with translated():
                rows = self._redis.xpending_range(
                    entry.stream, self.group, min=entry.entry_id, max=entry.entry_id, count=1
                )
            counts |= {
                (entry.stream, text(row["message_id"])): row["times_delivered"] for row in rows
            }
        return counts

    def trim(self, retention_s: float) -> int:
        """Drop entries that every group has finished and that are old enough; how many went.

        An entry that any group has pending or has not read stays, whatever its age.
        """
        trimmed = 0
        for stream in self.streams:
            for _ in range(TRIM_ROUNDS):
                with translated():
                    gone = int(self._redis.eval(_TRIM, 1, stream, int(retention_s * 1000)))
                trimmed += gone
                if not gone:
                    break
        return trimmed

    def remove_idle_consumers(self, idle_s: float) -> list[str]:
        """Forget consumers that were silent for so long and have nothing pending.

        Checked and removed in one step on the server: XGROUP DELCONSUMER drops
        in silence whatever a consumer has pending.
        """
        removed: list[str] = []
        for stream in self.streams:
            with translated():
                names = self._redis.eval(
                    _REMOVE_IDLE, 1, stream, self.group, self.consumer, int(idle_s * 1000)
                )
            removed += [text(name) for name in names]
        return removed

    def close(self) -> None:
        """Close the connection; what is pending stays pending."""
        self._redis.close()

    def _read(self, wanted: dict[str, str], count: int, block_ms: int | None) -> list[Entry]:
        with translated():
            return _entries(
                self._redis.xreadgroup(
                    self.group, self.consumer, wanted, count=count, block=block_ms
                )
            )


@contextmanager
def translated() -> Iterator[None]:
    """Redis's errors as StreamUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StreamUnavailable(f"redis: {told(error)}") from error


def _add_acks(pipe: Any, group: str, entries: Sequence[Entry]) -> None:
    by_stream: dict[str, list[str]] = {}
    for entry in entries:
        by_stream.setdefault(entry.stream, []).append(entry.entry_id)
    for stream, ids in by_stream.items():
        pipe.xack(stream, group, *ids)


def _entries(reply: Any) -> list[Entry]:
    return [_entry(text(stream), raw) for stream, found in reply or () for raw in found]


def _entry(stream: str, raw: Any) -> Entry:
    entry_id, fields = raw
    return Entry(stream, text(entry_id), fields or {})


def text(value: Any) -> str:
    """An id or a name as the server sent it."""
    return value.decode() if isinstance(value, bytes) else str(value)
