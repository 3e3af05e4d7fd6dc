"""Who is at work on other machines: a sorted set in Redis that every part writes to.

Heartbeat files are seen on their own machine alone.  So each part also notes
itself here, every ten seconds, by the server's clock, which all share.  It asks
nobody: ``inspect ping`` would cost every worker an answer.  The set is bounded,
because whoever notes itself forgets those that were silent for ten minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from schemas.errors import StreamUnavailable
from schemas.settings import Settings
from tasks.redis_server import open_client, told

TIMEOUT_S = 1.0
"""A loop that notes itself is held up for no longer than this per answer."""

KEPT_S = 600.0

SILENT_S = 45.0
"""Whoever noted itself last before this hangs or is gone: three turns of ten seconds are missing,
and a loop may be away for some."""

SWEPT = "sweep"
"""Not a process: the last sweep that a worker ended, from beat by way of the broker."""


class Seen(NamedTuple):
    """A part on a host, and how long ago it noted itself, in seconds.  A sweep has no process."""

    part: str
    host: str
    pid: int
    ago_s: float


class Presence:
    """The set of one installation.  Connects at first use; not safe between threads."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url
        self._key = f"{settings.consumer_group}:heartbeats"
        self._client: Any = None

    def note(self, part: str, host: str, pid: int) -> None:
        """This part is alive.  Raises StreamUnavailable."""
        with self._connected() as client:
            now = _seconds(client.time())
            pipeline = client.pipeline(transaction=False)
            pipeline.zadd(self._key, {f"{part} {pid} {host}": now})
            pipeline.zremrangebyscore(self._key, "-inf", now - KEPT_S)
            pipeline.execute()

    def forget(self, part: str, host: str, pid: int) -> None:
        """This part stops as it should.  Raises StreamUnavailable."""
        with self._connected() as client:
            client.zrem(self._key, f"{part} {pid} {host}")

    def read(self) -> list[Seen]:
        """Everybody who was seen in the last ten minutes, the latest last.

        Raises StreamUnavailable.
        """
        with self._connected() as client:
            now = _seconds(client.time())
            rows = client.zrangebyscore(self._key, now - KEPT_S, "+inf", withscores=True)
        found = []
        for member, at in rows:
            part, pid, host = member.decode("utf-8", "replace").split(" ", 2)
            found.append(Seen(part, host, int(pid), max(0.0, now - at)))
        return found

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        if self._client is None:
            self._client = open_client(self._url, timeout_s=TIMEOUT_S, connect_s=TIMEOUT_S)
        try:
            yield self._client
        except (RedisError, OSError) as error:
            raise StreamUnavailable(f"redis: {told(error)}") from error


def _seconds(time: tuple[int, int]) -> float:
    return time[0] + time[1] / 1_000_000
