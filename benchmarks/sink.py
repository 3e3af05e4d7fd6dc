"""A local HTTP sink in a process of its own: when did news of which scan arrive?

A few lines of asyncio, so that it takes as little as possible of the machine that
both contestants share.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
SCAN = re.compile(rb'"scan_id": ?"([^"]+)"')
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Sink:
    """``arrivals`` gives (scan id, path, wall clock) of everything so far."""

    def __init__(self, told: Connection, port: int) -> None:
        self._told = told
        self.port = port

    def count(self) -> int:
        """Requests so far."""
        self._told.send("count")
        return int(self._told.recv())

    def arrivals(self) -> list[tuple[str, str, float]]:
        """All of them."""
        self._told.send("all")
        found: list[tuple[str, str, float]] = self._told.recv()
        return found


@contextmanager
def sink() -> Iterator[Sink]:
    """A sink that is up; its process ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Sink(ours, ours.recv())
    finally:
        ours.send(None)
        process.join()


class _Requests(asyncio.Protocol):
    def __init__(self, seen: list[tuple[str, str, float]]) -> None:
        self._seen = seen
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, mark, rest = self._data.partition(b"\r\n\r\n")
            length = LENGTH.search(head)
            if not mark or (length and len(rest) < int(length[1])):
                return
            size = int(length[1]) if length else 0
            body, self._data = rest[:size], rest[size:]
            found = SCAN.search(body)
            path = head.split(b" ", 2)[1].decode()
            self._seen.append((found[1].decode() if found else "", path, time.time()))
            self._transport.write(ANSWER)


def _serve(told: Connection) -> None:
    async def run() -> None:
        seen: list[tuple[str, str, float]] = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Requests(seen), "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        ended = loop.create_future()

        def answer() -> None:
            asked = told.recv()
            if asked is None:
                loop.remove_reader(told.fileno())
                ended.set_result(None)
            else:
                told.send(len(seen) if asked == "count" else list(seen))

        loop.add_reader(told.fileno(), answer)
        await ended
        server.close()

    asyncio.run(run())
