"""A line to a server that a test can cut, or hold so that nothing passes and nobody is told."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

from cli.embedded import free_port


class Line:
    """Passes connections on ``port`` to a server on loopback until it is closed."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self._server_port = server_port
        self._door = socket.create_server(("127.0.0.1", self.port))
        self._ends: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._is_held = False
        self._is_closed = False
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._accept, self._pass)
        ]
        for thread in self._threads:
            thread.start()

    def cut(self) -> int:
        """Close every connection; how many there were.  New ones are welcome."""
        with self._lock:
            ends, self._ends = list(self._ends), {}
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        return len(ends) // 2

    def hold(self) -> None:
        """From now on nothing passes, as behind a firewall that forgot the connections."""
        self._is_held = True

    def release(self) -> None:
        """Pass on what waited."""
        self._is_held = False

    def close(self) -> None:
        """The end."""
        self._is_closed = True
        for thread in self._threads:
            thread.join(5)
        self._door.close()
        self.cut()

    def _accept(self) -> None:
        while not self._is_closed:
            if not select.select([self._door], [], [], 0.1)[0]:
                continue
            client, _ = self._door.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port), 1)
            except OSError:
                client.close()  # the server is away
                continue
            server.settimeout(None)
            with self._lock:
                self._ends |= {client: server, server: client}

    def _pass(self) -> None:
        while not self._is_closed:
            with self._lock:
                ends = dict(self._ends)
            if self._is_held or not ends:
                threading.Event().wait(0.02)
                continue
            with contextlib.suppress(OSError, ValueError):  # cut while we wait
                for end in select.select(list(ends), [], [], 0.05)[0]:
                    self._pass_on(end, ends[end])

    def _pass_on(self, end: socket.socket, other: socket.socket) -> None:
        try:
            data = end.recv(65_536)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass  # one side is gone: so is the other
        with self._lock:
            for one in (end, other):
                self._ends.pop(one, None)
        for one in (end, other):
            one.close()
