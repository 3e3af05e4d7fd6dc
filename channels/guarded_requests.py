"""The guarded transport under ``requests``, for a library that brings its own HTTP client.

Apprise's plugins call ``requests.post`` and its like with addresses that a
subscriber typed.  Apprise's modules are given a stand-in of that name, which goes
through the guarded transport while ``carried`` is open on the calling thread and
nowhere at any other time (a plugin may say goodbye when it is garbage).  Meanwhile
an audit hook refuses that thread any other way out of the process.  Whoever else
uses ``requests`` notices nothing.
"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from http.client import responses
from types import ModuleType
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from channels.answers import Answer
from channels.guarded_http import GuardedHttp
from schemas.errors import ChannelUnavailable, DeliveryRejected, DestinationForbidden, RateLimited

_OURS = frozenset(
    ("host", "user-agent", "accept-encoding", "connection", "content-length", "transfer-encoding")
)
"""Headers that the transport sets: a subscriber's URL may not."""

_WAYS_OUT = frozenset(
    ("socket.connect", "socket.sendto", "socket.sendmsg", "subprocess.Popen", "os.system")
)
"""Audit events of a plugin that would reach the outside by itself."""


class Carried:
    """What came of the calls that one thread made of ``requests``.

    All of them together may take ``timeout_s``.  ``answer`` is the last answer;
    ``failure`` says why the last call that failed did, in our own errors.
    """

    def __init__(self, http: GuardedHttp, timeout_s: float) -> None:
        self._http = http
        self._ends = time.monotonic() + timeout_s
        self.answer: Answer | None = None
        self.failure: ChannelUnavailable | DeliveryRejected | None = None

    def carry(self, request: requests.PreparedRequest) -> requests.Response:
        """Send ``request`` and answer as ``requests`` would."""
        try:
            came = self._http.exchange(
                request.method or "GET",
                request.url or "",
                _content(request.body),
                _headers(request.headers),
                timeout_s=max(0.0, self._ends - time.monotonic()),
            )
        except (ChannelUnavailable, DeliveryRejected) as error:
            self.failure = error
            raise requests.ConnectionError(str(error)) from error
        self.answer = came.answer
        try:
            self._http.accepted(came)
        except RateLimited as error:
            self.failure = error
            # A plugin would wait and call again; our own schedule does that.
            raise requests.ConnectionError(str(error)) from error
        except (ChannelUnavailable, DeliveryRejected) as error:
            self.failure = error  # what it means is the plugin's to say: see how it ends
        return _response(request, came.answer, came.body)


class _Line(threading.local):
    """What carries this thread's calls; nothing outside ``carried``."""

    carried: Carried | None = None


_line = _Line()


@contextmanager
def carried(http: GuardedHttp, timeout_s: float) -> Iterator[Carried]:
    """Within it, this thread reaches the outside by ``http`` alone."""
    _watch_exits()
    _line.carried = Carried(http, timeout_s)
    try:
        yield _line.carried
    finally:
        _line.carried = None


@cache
def guard_package(name: str) -> None:
    """Give every module of an imported package the stand-in for its ``requests``."""
    guarded = _stand_in()
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(f"{name}.") and vars(module).get("requests") is requests:
            vars(module)["requests"] = guarded


def _stand_in() -> ModuleType:
    """All of ``requests``, but its sessions end in the guarded transport."""
    guarded = ModuleType("requests")
    vars(guarded).update(vars(requests))
    vars(guarded).update(Session=_Session, session=_Session)
    for name in ("request", "get", "options", "head", "post", "put", "patch", "delete"):
        vars(guarded)[name] = partial(_call, name)
    return guarded


def _call(name: str, *arguments: Any, **options: Any) -> requests.Response:
    with _Session() as session:
        response: requests.Response = getattr(session, name)(*arguments, **options)
        return response


class _Session(requests.Session):
    """A session without proxies, without the operator's .netrc, without redirects."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.mount("https://", _Adapter())
        self.mount("http://", _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: a redirect is an answer like any other, and no good one."""


class _Adapter(BaseAdapter):
    """The end of ``requests`` that would open connections."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        # Certificates are always verified, whatever the caller asks for.
        carrier = _line.carried
        if carrier is None:
            raise requests.ConnectionError("nothing is sent but with a message")
        _line.carried = None  # the transport itself may open sockets
        try:
            return carrier.carry(request)
        finally:
            _line.carried = carrier

    def close(self) -> None:
        """The transport outlives the session."""


@cache
def _watch_exits() -> None:
    """Once per process, as a hook cannot be taken back."""

    def refuse(event: str, _: Any, ways: frozenset[str] = _WAYS_OUT, line: _Line = _line) -> None:
        if event in ways and line.carried is not None:
            said = f"this service of Apprise's reaches out by {event}, past the guard"
            line.carried.failure = DestinationForbidden(f"{said}; it is not supported")
            raise PermissionError(said)  # an OSError, which network code cleans up after

    sys.addaudithook(refuse)


def _content(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    raise requests.RequestException("a body that is a stream is not supported")


def _headers(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    return {
        name: value.decode("latin-1") if isinstance(value, bytes) else value
        for name, value in headers.items()
        if name.lower() not in _OURS
    }


def _response(request: requests.PreparedRequest, answer: Answer, body: bytes) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status_code
    response.reason = responses.get(answer.status_code, "")
    response.headers = CaseInsensitiveDict(answer.headers)
    response.encoding = requests.utils.get_encoding_from_headers(response.headers)
    response.raw = io.BytesIO(body)
    response.request = request
    response.url = request.url or ""
    return response
