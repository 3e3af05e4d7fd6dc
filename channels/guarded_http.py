"""The only HTTP client for addresses that people typed: webhooks, Slack, datarefs.

A subscriber's URL is a request to connect somewhere on our network's behalf, so
the name is resolved once, every address it gives is checked, and the connection
goes to a checked address, never back to the name.  Redirects, proxies, cookies,
the environment and decompression do not exist here: it sits on httpcore, below
the layer that has them.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpcore
import httpx

from channels.answers import Answer, accept
from channels.destinations import Allowed, checked_url, is_exempt, is_public, parse_allow
from channels.protocol import Clock
from channels.readable import one_line, receipt_text
from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    DestinationForbidden,
    TooLarge,
)

MAX_ANSWER_BYTES = 64 * 1024
"""What is read at most of an answer to a post."""
MAX_ADDRESSES = 8
"""Addresses of one name that are tried at most."""

Resolve = Callable[..., Sequence[tuple[Any, Any, Any, Any, tuple[Any, ...]]]]
"""``socket.getaddrinfo`` or a stand-in with its first two arguments and ``type``."""


class GuardedHttp:
    """HTTP to untrusted destinations, with pooled connections.  Safe in threads.

    ``timeout_s`` bounds each step and the whole exchange, an answer that drips
    byte by byte included; only the system's resolver keeps its own time.
    ``allow`` names destinations exempt from the address check and from https.
    """

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        timeout_s: float = 10.0,
        resolve: Resolve = socket.getaddrinfo,
        clock: Clock = lambda: datetime.now(UTC),
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = parse_allow(allow)
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline = _Deadline()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context or _trusted_roots(),
            max_connections=32,
            keepalive_expiry=30.0,
            network_backend=_PinningBackend(self._allowed, resolve, self._deadline),
        )

    def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Send ``content`` and return the 2xx answer.

        Any other answer raises as ``answers.accept`` says; a refused destination
        raises DestinationForbidden; silence, a broken connection or an unknown
        name ChannelUnavailable.  No text ever holds more of the URL than its
        scheme and host.
        """
        target = checked_url(url, self._allowed)
        response, body, _ = self._exchange("POST", target, content, headers, MAX_ANSWER_BYTES)
        return self._accepted(target, response, body)

    def get(self, url: str, max_bytes: int) -> bytes:
        """Fetch ``url`` whole.

        Raises TooLarge beyond ``max_bytes`` (no more than that is read), and the
        same as ``post`` otherwise; the caller maps those to what they mean for it.
        """
        target = checked_url(url, self._allowed)
        response, body, whole = self._exchange("GET", target, b"", {}, max_bytes)
        answer = self._accepted(target, response, body[:MAX_ANSWER_BYTES])
        if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise DeliveryRejected(
                f"{_place(target)} sent compressed data although asked not to",
                status_code=answer.status_code,
            )
        if not whole:
            raise TooLarge(f"{_place(target)} sent more than {max_bytes:,} bytes")
        return body

    def close(self) -> None:
        """Close all connections.  Safe to repeat."""
        self._pool.close()

    def _accepted(self, target: httpx.URL, response: httpcore.Response, body: bytes) -> Answer:
        hidden = (target.raw_path.decode("ascii"), target.path, target.query.decode("ascii"))
        answer = Answer(
            status_code=response.status,
            headers={
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            },
            text_excerpt=receipt_text(body, hidden),
        )
        return accept(answer, _place(target), self._clock())

    def _exchange(
        self,
        method: str,
        target: httpx.URL,
        content: bytes,
        headers: Mapping[str, str],
        max_bytes: int,
    ) -> tuple[httpcore.Response, bytes, bool]:
        """Send and read at most ``max_bytes``; the last value says whether that was all."""
        place = _place(target)
        self._deadline.start(self._timeout_s)
        try:
            with self._pool.stream(
                method,
                httpcore.URL(
                    scheme=target.raw_scheme,
                    host=target.raw_host,
                    port=target.port,
                    target=target.raw_path,
                ),
                headers=[
                    (b"host", target.netloc),
                    (b"user-agent", b"scanherald"),
                    (b"accept-encoding", b"identity"),
                    *(
                        (name.encode("ascii"), text.encode("ascii"))
                        for name, text in headers.items()
                    ),
                ],
                content=content,
                extensions={
                    "timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
                },
            ) as response:
                body = bytearray()
                for chunk in response.iter_stream():
                    body += chunk
                    if len(body) > max_bytes:
                        return response, bytes(body[:max_bytes]), False
                return response, bytes(body), True
        except httpcore.TimeoutException as error:
            raise ChannelUnavailable(
                f"{place} did not finish within {self._timeout_s:g} s"
            ) from error
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            raise ChannelUnavailable(
                f"{place} could not be reached: {one_line(str(error), 200) or 'connection broken'}"
            ) from error
        except (httpcore.LocalProtocolError, UnicodeEncodeError) as error:
            raise DeliveryRejected(f"a header for {place} cannot be sent over HTTP") from error


def _place(target: httpx.URL) -> str:
    """All of a URL that an error may say: Slack's path is a password."""
    return f"{target.scheme}://{target.host}"


def _trusted_roots() -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    # The machine's own store too: a self-hosted receiver may have a company's certificate.
    context.load_default_certs()
    return context


class _Deadline(threading.local):
    """When the exchange that this thread is in must be over.

    A synchronous exchange runs on its caller's thread from start to end, while
    a pooled stream outlives it: so the thread knows the time left, not the stream.
    """

    at = math.inf

    def start(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    def left(self, too_late: type[httpcore.TimeoutException]) -> float:
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise too_late("the time for the whole exchange is over")
        return seconds


class _PinningBackend(httpcore.NetworkBackend):
    """Connects to addresses it has checked itself; the name is looked up once."""

    def __init__(self, allowed: Allowed, resolve: Resolve, deadline: _Deadline) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline is tighter
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolved(host, port)
        if not all(map(is_public, addresses)) and not is_exempt(self._allowed, host, port):
            raise DestinationForbidden(
                f"{host} leads to a private or reserved address; an operator may exempt it "
                "with SCANHERALD_HTTP_ALLOW"
            )
        failure: Exception = httpcore.ConnectError("the name has no address")
        addresses = addresses[:MAX_ADDRESSES]
        for tried, address in enumerate(addresses):
            # A fair share each, so that one dead address leaves time for the next.
            share = self._deadline.left(httpcore.ConnectTimeout) / (len(addresses) - tried)
            try:
                stream = self._sockets.connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure

    def _resolved(self, host: str, port: int) -> list[str]:
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a label too long or empty
            raise DestinationForbidden(f"{one_line(host, 100)} is not a host name") from error
        except OSError as error:
            raise httpcore.ConnectError("the name could not be resolved") from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _TimedStream(httpcore.NetworkStream):
    """A stream none of whose steps outlasts the exchange."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - as above
        return self._stream.read(max_bytes, self._deadline.left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - as above
        self._stream.write(buffer, self._deadline.left(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(httpcore.ConnectTimeout)
        return _TimedStream(
            self._stream.start_tls(ssl_context, server_hostname, left), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
