"""The audit of the streams: every entry is waiting, in hand, or in the ledger.

The ledger is asked after Redis.  RECORD comes before the acknowledgement, so an
entry that the group had finished when Redis was asked is in the ledger by then,
whatever listeners do meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis.exceptions import RedisError

from schemas.audit import Audit, Gap
from schemas.errors import InvalidEvent, StreamUnavailable
from schemas.events import decode_entry
from store.audit import Progress, recorded_entries, recorded_identities
from store.ledger import Ledger
from tasks.redis_server import ASK, open_client, told

TIMEOUT_S = 30.0

PAGE = 500
"""Entries of one look."""

PAGE_BYTES = 4 * 1024 * 1024
"""A look ends at the entry that reaches so many bytes: the server copies what it counts."""

_LOOK = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local group = false
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local fields = {}
    for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
    if fields['name'] == ARGV[1] then group = fields['last-delivered-id'] end
end
local answer, bytes, from = {group}, 0, ARGV[2]
while #answer <= tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
    local entry = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
    if not entry then break end
    local id = entry[1]
    for _, text in ipairs(entry[2]) do bytes = bytes + #text end
    local pending = group and #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) or 0
    table.insert(answer, {id, pending})
    from = '(' .. id
end
return answer
"""
"""Ids alone leave the server: XRANGE has no limit of bytes, and an entry may have 16 MiB.

In one step, so that an entry is not acknowledged between being listed and being looked up.
"""


@dataclass(frozen=True, slots=True)
class _Listed:
    entry_id: str
    waiting: bool
    pending: bool


def audit_streams(
    url: str,
    streams: Sequence[str],
    group: str,
    ledger: Ledger,
    audit: Audit,
    *,
    since: datetime | None,
    progress: Progress,
) -> None:
    """``entries = waiting + pending + recorded + repeats + dead + lost``, as the part ``stream``.

    ``since`` leaves out entries with an older id.  Raises StreamUnavailable,
    LedgerUnavailable.
    """
    sums = audit.begin(
        "stream", *("entries", "waiting", "pending", "recorded", "repeats", "dead", "lost")
    )
    client = open_client(url, timeout_s=TIMEOUT_S, is_patient=True)
    try:
        for stream in streams:
            for page in _pages(client, stream, group, since):
                _judge(client, stream, page, ledger, audit)
                progress("stream", sums["entries"])
    finally:
        client.close()


def _pages(client: Any, stream: str, group: str, since: datetime | None) -> Iterator[list[_Listed]]:
    start = "-" if since is None else f"{max(0, int(since.timestamp() * 1000))}-0"
    while True:
        with _translated():
            answer = client.eval_ro(_LOOK, 1, stream, group, start, PAGE, PAGE_BYTES)
        if len(answer) < 2:
            return
        delivered = answer[0]
        yield [
            _Listed(
                entry_id=raw.decode(),
                waiting=delivered is None or _order(raw) > _order(delivered),
                pending=bool(pending),
            )
            for raw, pending in answer[1:]
        ]
        start = f"({answer[-1][0].decode()}"


def _judge(client: Any, stream: str, page: list[_Listed], ledger: Ledger, audit: Audit) -> None:
    sums = audit.sums["stream"]
    finished = [item.entry_id for item in page if not item.waiting and not item.pending]
    taken, dead = recorded_entries(ledger, stream, finished)
    waiting = sum(1 for item in page if item.waiting)
    sums["waiting"] += waiting
    sums["pending"] += len(page) - waiting - len(finished)
    sums["recorded"] += len(taken)
    sums["dead"] += len(dead)
    ours = taken | dead
    unknown = [entry_id for entry_id in finished if entry_id not in ours]
    brought = _brought(client, stream, unknown)
    known = recorded_identities(ledger, {identity for identity in brought.values() if identity})
    sums["entries"] += len(page) - (len(unknown) - len(brought))
    for entry_id, identity in brought.items():
        if identity in known:  # another entry brought the same event first
            sums["repeats"] += 1
            continue
        sums["lost"] += 1
        audit.add(
            Gap(
                "lost entry",
                {"stream": stream, "entry": entry_id},
                "The group has finished it, and the ledger knows neither it nor its event.",
                "After a restore: scanherald replay --from-stream. Else publish its fields again: "
                "who acknowledged it, or moved the group?",
            )
        )


def _brought(
    client: Any, stream: str, entry_ids: Sequence[str]
) -> dict[str, tuple[str, str] | None]:
    """The identity of each entry's event, one entry in memory at a time; None: it has no event.

    Entries that were trimmed since they were listed are left out: they are
    entries of the stream no longer.
    """
    brought: dict[str, tuple[str, str] | None] = {}
    for entry_id in entry_ids:
        fields = _fields(client, stream, entry_id)
        if fields is None:
            continue
        try:
            # unbounded: today's limit says nothing of the day when the entry was taken in
            event = decode_entry(fields, max_bytes=sys.maxsize)
        except InvalidEvent:
            brought[entry_id] = None
        else:
            brought[entry_id] = (event.source, event.event_id)
    return brought


def _fields(client: Any, stream: str, entry_id: str) -> dict[bytes, bytes] | None:
    with _translated():
        found = client.xrange(stream, min=entry_id, max=entry_id, count=1)
    return found[0][1] if found else None


def _order(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-")))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StreamUnavailable(
            f"redis: {told(error, ASK)} --no-stream audits the ledger alone"
        ) from error
