"""How far the consumer group is behind: what monitors ask of the streams.

Reads only, and never as a consumer: looking must not change who has what.  Here
and not beside the listener, because the monitoring tasks ask too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis.exceptions import RedisError

from schemas.errors import StreamUnavailable
from tasks.redis_server import open_client, told

TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class StreamLag:
    """One stream as its consumer group stands to it.

    ``unread`` entries were not given to any consumer yet; None where the server
    cannot tell (a group set back, entries deleted).  ``pending`` were given and
    are not acknowledged.  ``oldest_s`` is the age of the oldest entry of both
    kinds, by its id, in seconds; None while there is none.  Without a group,
    which the first listener makes, every entry is unread.
    """

    stream: str
    length: int
    unread: int | None
    pending: int
    oldest_s: float | None
    consumers: int


def read_lag(url: str, streams: Sequence[str], group: str, now: datetime) -> list[StreamLag]:
    """Ask the server about each stream.  Raises StreamUnavailable."""
    try:
        client = open_client(url, timeout_s=TIMEOUT_S, connect_s=TIMEOUT_S)
        try:
            return [_lag(client, stream, group, now) for stream in streams]
        finally:
            client.close()
    except (RedisError, OSError) as error:
        raise StreamUnavailable(f"redis: {told(error)}") from error


def _lag(client: Any, stream: str, group: str, now: datetime) -> StreamLag:
    if not client.exists(stream):
        return StreamLag(stream, 0, 0, 0, None, 0)
    length = int(client.xlen(stream))
    found = [row for row in client.xinfo_groups(stream) if _text(row["name"]) == group]
    if not found:
        first = client.xrange(stream, count=1)
        return StreamLag(stream, length, length, 0, _age(first, now), 0)
    row = found[0]
    pending = int(row["pending"])
    waiting = client.xrange(stream, min=f"({_text(row['last-delivered-id'])}", count=1)
    if pending:
        oldest = client.xpending(stream, group)["min"]
        waiting = [(oldest, {}), *waiting] if oldest is not None else waiting
    lag = row.get("lag")
    return StreamLag(
        stream=stream,
        length=length,
        unread=None if lag is None else int(lag),
        pending=pending,
        oldest_s=_age(waiting, now),
        consumers=int(row["consumers"]),
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _age(waiting: Sequence[Any], now: datetime) -> float | None:
    moments = [int(_text(entry_id).split("-", 1)[0]) / 1000 for entry_id, _ in waiting]
    return max(0.0, now.timestamp() - min(moments)) if moments else None
