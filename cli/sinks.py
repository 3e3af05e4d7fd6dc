"""The other side, in miniature: a mail server and an HTTP server on this machine.

The demo shows what would have been sent, and the tests see exactly what arrived,
with the same two sinks.  Both listen on 127.0.0.1 at a free port, keep what they
get, and write it to a folder when given one.
"""

from __future__ import annotations

import re
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""What the HTTP sink reads of a request's body."""


@dataclass(frozen=True, slots=True)
class SunkMail:
    """One e-mail as it came in."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def parsed(self) -> EmailMessage:
        """The message by its modern parser."""
        return message_from_bytes(self.content, policy=policy.default)


class MailSink:
    """A mail server that keeps everything.  A context manager; safe in threads.

    ``smtp_options`` go to aiosmtpd's SMTP (``tls_context``, ``authenticator`` …);
    ``ssl_context`` makes it speak TLS from the first byte.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        **smtp_options: Any,
    ) -> None:
        self._folder = folder
        self._messages: list[SunkMail] = []
        self._replies: dict[str, deque[str]] = {"RCPT": deque(), "DATA": deque()}
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._controller = _BoundController(
            self, listening=self._listening, ssl_context=ssl_context, smtp_options=smtp_options
        )

    @property
    def messages(self) -> tuple[SunkMail, ...]:
        """What came in so far, oldest first."""
        with self._lock:
            return tuple(self._messages)

    def script(self, command: str, *replies: str) -> None:
        """Answer the next ``RCPT`` or ``DATA`` commands with ``replies``, such as ``451 later``."""
        with self._lock:
            self._replies[command].extend(replies)

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
        self._listening.close()

    def _scripted(self, command: str) -> str | None:
        with self._lock:
            replies = self._replies[command]
            return replies.popleft() if replies else None

    # aiosmtpd finds these two by their names and calls them on its own thread.

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: object
    ) -> str:
        """Take a recipient, or refuse as scripted."""
        if (reply := self._scripted("RCPT")) is not None:
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keep a message, or refuse as scripted."""
        if (reply := self._scripted("DATA")) is not None:
            return reply
        mail = SunkMail(
            sender=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            content=cast(bytes, envelope.original_content),
        )
        with self._lock:
            self._messages.append(mail)
            number = len(self._messages)
        if self._folder is not None:
            (self._folder / f"{number:04d}.eml").write_bytes(mail.content)
        return f"250 OK kept as {number:04d}"


class _BoundController(Controller):
    """aiosmtpd's thread on a socket that is already bound: a free port, known before the start."""

    def __init__(
        self,
        handler: object,
        *,
        listening: socket.socket,
        ssl_context: ssl.SSLContext | None,
        smtp_options: Mapping[str, Any],
    ) -> None:
        super().__init__(
            handler,
            hostname="127.0.0.1",
            port=listening.getsockname()[1],
            ssl_context=ssl_context,
            server_hostname="mail.sink.invalid",
            **smtp_options,
        )
        self._listening = listening

    def _create_server(self) -> Any:
        return self.loop.create_server(
            self._factory_invoker, sock=self._listening, ssl=self.ssl_context
        )


@dataclass(frozen=True, slots=True)
class SunkRequest:
    """One HTTP request as it came in; header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class SinkAnswer:
    """What the HTTP sink says; it waits ``delay_s`` first and ``drip_s`` before each byte."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    drip_s: float = 0.0


def _agreeable(request: SunkRequest) -> SinkAnswer:
    return SinkAnswer(body=b"ok" if request.path.startswith("/slack") else b"")


class HttpSink:
    """An HTTP server that keeps everything.  A context manager; safe in threads.

    ``answer`` decides what to say; by default 200, with Slack's ``ok`` under
    ``/slack``.  Answers queued by ``script`` come first.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        answer: Callable[[SunkRequest], SinkAnswer] = _agreeable,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._folder = folder
        self._answer = answer
        self._scripted: deque[SinkAnswer] = deque()
        self._requests: list[SunkRequest] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _SinkServer(self._take, self._closing)
        if ssl_context is not None:
            self._server.socket = ssl_context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_address[1]
        scheme = "http" if ssl_context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="http-sink"
        )

    @property
    def requests(self) -> tuple[SunkRequest, ...]:
        """What came in so far, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def script(self, *answers: SinkAnswer) -> None:
        """Give the next requests these answers, in their order."""
        with self._lock:
            self._scripted.extend(answers)

    def __enter__(self) -> Self:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def _take(self, request: SunkRequest) -> SinkAnswer:
        with self._lock:
            self._requests.append(request)
            number = len(self._requests)
            scripted = self._scripted.popleft() if self._scripted else None
        if self._folder is not None:
            name = f"{request.path}-{request.headers.get('webhook-id', f'{number:04d}')}"
            safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.")[:150]
            (self._folder / f"{safe}.json").write_bytes(request.body)
        return scripted if scripted is not None else self._answer(request)


class _SinkServer(ThreadingHTTPServer):
    """Knows its open connections, so that closing neither waits for clients nor leaks them."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, take: Callable[[SunkRequest], SinkAnswer], closing: threading.Event) -> None:
        self.take = take
        self.closing = closing
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _SinkHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no fault of the sink's; anything else stays loud."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _SinkHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment per answer: Nagle's algorithm would add 40 ms to each.
    wbufsize = -1
    disable_nagle_algorithm = True

    server: _SinkServer

    def do_POST(self) -> None:
        """Keep the request and say what the sink wants said."""
        length = int(self.headers.get("content-length") or 0)
        request = SunkRequest(
            method=self.command,
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(min(length, MAX_REQUEST_BYTES)),
        )
        self._say(self.server.take(request))

    do_GET = do_PUT = do_POST

    def _say(self, answer: SinkAnswer) -> None:
        self.server.closing.wait(answer.delay_s)
        self.send_response(answer.status)
        for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not answer.drip_s:
            self.wfile.write(answer.body)
            return
        for byte in answer.body:
            self.wfile.flush()
            if self.server.closing.wait(answer.drip_s):
                self.close_connection = True
                return
            self.wfile.write(bytes((byte,)))

    def log_message(self, *_: Any) -> None:
        """Say nothing: the sink's owner looks at ``requests``."""
