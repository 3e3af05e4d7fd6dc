"""The only HTTP client for addresses that people typed: webhooks, Slack, Apprise, datarefs.

A subscriber's URL is a request to connect somewhere on our network's behalf, so
the name is resolved once, every address it gives is checked, and the connection
goes to a checked address, never back to the name.  Redirects, proxies, cookies,
the environment and decompression do not exist here: it sits on httpcore, below
the layer that has them.
"""

from __future__ import annotations

import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, unquote_plus

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

Entry = tuple[Any, Any, Any, Any, tuple[Any, ...]]
"""One address of a name, as ``socket.getaddrinfo`` gives it."""
Resolve = Callable[..., Sequence[Entry]]
"""``socket.getaddrinfo`` or a stand-in with its first two arguments and ``type``."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back, whatever its status.

    ``place`` is all of the URL that an error may say; ``whole`` is False where
    ``body`` was cut.
    """

    place: str
    answer: Answer
    body: bytes
    whole: bool


class GuardedHttp:
    """HTTP to untrusted destinations, with pooled connections.  Safe in threads.

    ``timeout_s`` bounds the whole exchange: the look-up of the name, each step and
    an answer that drips byte by byte.  ``allow`` names destinations exempt from the
    address check and from https.
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

    def post(
        self, url: str, content: bytes, headers: Mapping[str, str], hidden: Iterable[str] = ()
    ) -> Answer:
        """Send ``content`` and return the 2xx answer.

        Any other answer raises as ``answers.accept`` says; a refused destination
        raises DestinationForbidden; silence, a broken connection or an unknown
        name ChannelUnavailable.  No text ever holds more of the URL than its
        scheme and host, nor any of ``hidden``, even where the answer repeats it.
        """
        return self.accepted(self.exchange("POST", url, content, headers, hidden=hidden))

    def get(self, url: str, max_bytes: int) -> bytes:
        """Fetch ``url`` whole.

        Raises TooLarge beyond ``max_bytes`` (no more than that is read), and the
        same as ``post`` otherwise; the caller maps those to what they mean for it.
        """
        came = self.exchange("GET", url, b"", {}, max_bytes=max_bytes)
        answer = self.accepted(came)
        if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise DeliveryRejected(
                f"{came.place} sent compressed data although asked not to",
                status_code=answer.status_code,
            )
        if not came.whole:
            raise TooLarge(f"{came.place} sent more than {max_bytes:,} bytes")
        return came.body

    def accepted(self, came: Exchange) -> Answer:
        """The 2xx answer of an exchange; raises what any other means."""
        return accept(came.answer, came.place, self._clock())

    def exchange(
        self,
        method: str,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        *,
        max_bytes: int = MAX_ANSWER_BYTES,
        timeout_s: float | None = None,
        hidden: Iterable[str] = (),
    ) -> Exchange:
        """Send and read at most ``max_bytes`` of the answer, whatever its status.

        ``timeout_s`` replaces the one for all.  Raises as ``post`` does, but for
        the status.
        """
        target = checked_url(url, self._allowed)
        seconds = self._timeout_s if timeout_s is None else timeout_s
        response, body, whole = self._stream(method, target, content, headers, max_bytes, seconds)
        answer = Answer(
            status_code=response.status,
            headers={
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            },
            text_excerpt=receipt_text(body[:MAX_ANSWER_BYTES], [*_secret_parts(target), *hidden]),
        )
        return Exchange(_place(target), answer, body, whole)

    def close(self) -> None:
        """Close all connections.  Safe to repeat."""
        self._pool.close()

    def _stream(
        self,
        method: str,
        target: httpx.URL,
        content: bytes,
        headers: Mapping[str, str],
        max_bytes: int,
        seconds: float,
    ) -> tuple[httpcore.Response, bytes, bool]:
        """Send and read at most ``max_bytes``; the last value says whether that was all."""
        place = _place(target)
        self._deadline.start(seconds)
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
                    "timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)
                },
            ) as response:
                body = bytearray()
                for chunk in response.iter_stream():
                    body += chunk
                    if len(body) > max_bytes:
                        return response, bytes(body[:max_bytes]), False
                return response, bytes(body), True
        except httpcore.TimeoutException as error:
            raise ChannelUnavailable(f"{place} did not finish within {seconds:g} s") from error
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            raise ChannelUnavailable(
                f"{place} could not be reached: {one_line(str(error), 200) or 'connection broken'}"
            ) from error
        except (httpcore.LocalProtocolError, UnicodeEncodeError) as error:
            raise DeliveryRejected(f"a header for {place} cannot be sent over HTTP") from error


def _place(target: httpx.URL) -> str:
    """All of a URL that an error may say: Slack's path is a password."""
    return f"{target.scheme}://{target.host}"


def _secret_parts(target: httpx.URL) -> list[str]:
    """What of a URL may be a token: path and query, whole and piece by piece.

    As typed and as meant.  The names of a query's values are nobody's secret.
    """
    whole, query = target.raw_path.decode("ascii"), target.query.decode("ascii")
    path = whole.removesuffix(f"?{query}")
    values = [item.partition("=")[2] or item for item in query.split("&")]
    typed = [whole, path, query, *path.split("/"), *values]
    typed += [part for piece in typed[3:] for part in re.split(r"[:;,=@+]", piece)]
    return [*typed, *map(unquote, typed), *map(unquote_plus, values)]


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
            found = self._looked_up(host, port).result(self._deadline.left(httpcore.ConnectTimeout))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("the name was not resolved in time") from error
        except UnicodeError as error:  # a label too long or empty
            raise DestinationForbidden(f"{one_line(host, 100)} is not a host name") from error
        except OSError as error:
            raise httpcore.ConnectError("the name could not be resolved") from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _looked_up(self, host: str, port: int) -> Future[Sequence[Entry]]:
        """Look up on a thread of its own: the system's resolver takes as long as a name server
        that somebody else runs lets it, and cannot be interrupted.  It ends by its own limits."""
        found: Future[Sequence[Entry]] = Future()

        def look_up() -> None:
            try:
                found.set_result(self._resolve(host, port, type=socket.SOCK_STREAM))
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                found.set_exception(error)

        threading.Thread(target=look_up, name="look-up", daemon=True).start()
        return found


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
