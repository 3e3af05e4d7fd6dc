"""The guarded transport against a name server that lies, with real packets and real sockets.

The internet is small here: whoever dials a public address reaches a server on this
machine, whose certificate is for the name; dialling anything else is noted and fails.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpcore
import pytest

from channels.guarded_http import GuardedHttp
from cli.sinks import HttpSink
from schemas.errors import ChannelUnavailable, DestinationForbidden
from tests.authority import Authority
from tests.nameserver import NameServer

PUBLIC, PUBLIC_6 = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
HOOK = "https://hooks.example/slack/token"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def receiver(authority: Authority) -> Iterator[HttpSink]:
    names = ("hooks.example", "xn--bcher-kva.example")
    with HttpSink(ssl_context=authority.server(*names)) as sink:
        yield sink


@pytest.fixture
def dialled(receiver: HttpSink, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that sockets were opened to."""
    dialled: list[str] = []
    connect = httpcore.SyncBackend.connect_tcp

    def connect_tcp(
        self: httpcore.SyncBackend, host: str, port: int, *rest: object
    ) -> httpcore.NetworkStream:
        dialled.append(host)
        if host not in (PUBLIC, PUBLIC_6):
            raise httpcore.ConnectError("nobody there")
        return connect(self, "127.0.0.1", receiver.port, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    return dialled


def _guarded(names: NameServer, authority: Authority, timeout_s: float = 20) -> GuardedHttp:
    return GuardedHttp(resolve=names.resolve, timeout_s=timeout_s, ssl_context=authority.trusted())


def test_a_name_that_leads_outside_first_and_inside_then_never_leads_inside(
    authority: Authority, receiver: HttpSink, dialled: list[str]
) -> None:
    with NameServer({"hooks.example": [[PUBLIC], ["127.0.0.1"]]}) as names:
        with closing(_guarded(names, authority)) as http:
            assert http.post(HOOK, b"", {}).status_code == 200
            assert names.asked == ["hooks.example"]  # the answer that was checked was used
            assert http.post(HOOK, b"", {}).status_code == 200  # on the connection that is kept
            assert names.asked == ["hooks.example"]
        with closing(_guarded(names, authority)) as http, pytest.raises(DestinationForbidden):
            http.post(HOOK, b"", {})

    assert names.asked == ["hooks.example"] * 2
    assert dialled == [PUBLIC]
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    "inside",
    [
        "127.0.0.1",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
@pytest.mark.parametrize("place", ["alone", "first", "last"])
def test_one_address_inside_refuses_the_name(
    authority: Authority, dialled: list[str], inside: str, place: str
) -> None:
    outside = [] if place == "alone" else [*(f"93.184.215.{last}" for last in range(12)), PUBLIC_6]
    found = [inside, *outside] if place == "first" else [*outside, inside]
    with (
        NameServer({"hooks.example": [found]}) as names,
        closing(_guarded(names, authority)) as http,
        pytest.raises(DestinationForbidden, match=r"hooks\.example leads to a private"),
    ):
        http.post(HOOK, b"", {})

    assert names.asked == ["hooks.example"]
    assert dialled == []


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("metadata.google.internal", "169.254.169.254"),
        ("metadata.google.internal.", "169.254.169.254"),
        ("instance-data.ec2.internal", "169.254.169.254"),
        ("metadata.azure.internal", "169.254.169.254"),
        ("metadata.tencentyun.com", "169.254.0.23"),
        ("kubernetes.default.svc", "10.96.0.1"),
        ("localtest.example", "127.0.0.1"),
        ("imds.example", "fd00:ec2::254"),
    ],
)
def test_a_metadata_service_is_refused_by_any_name(
    authority: Authority, dialled: list[str], name: str, address: str
) -> None:
    with (
        NameServer({name.rstrip("."): [[address]]}) as names,
        closing(_guarded(names, authority)) as http,
        pytest.raises(DestinationForbidden),
    ):
        http.post(f"https://{name}/computeMetadata/v1/", b"", {"metadata-flavor": "Google"})

    assert dialled == []


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "127.1",
        "127.0.0.1.",
        "①②⑦．０．０．１",
        "１２７.0.0.1",
        "127。0。0。1",
        "[::1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "good@127.0.0.1",
        "hooks.example:443@127.0.0.1",
        "hooks.example%2f@127.0.0.1",
        "127.0.0.1\\@hooks.example",
        "127.0.0.1\t.hooks.example",
        "hooks.example\r\nx-evil: 1",
        "hooks.example%0d%0a",
        "127.0.0.1:443:443",
        "hooks.example:443@",
    ],
)
def test_no_spelling_of_a_host_leads_inside(
    authority: Authority, dialled: list[str], host: str
) -> None:
    with (
        NameServer({"hooks.example": [[PUBLIC]]}) as names,
        closing(_guarded(names, authority)) as http,
        pytest.raises(DestinationForbidden),
    ):
        http.post(f"https://{host}/token", b"", {})

    assert dialled == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://HOOKS.Example./slack", "hooks.example"),
        ("https://bücher.example/slack", "xn--bcher-kva.example"),
        ("https://hooks.example#@127.0.0.1/", "hooks.example"),
        ("https://hooks.example?@127.0.0.1/", "hooks.example"),
        ("https://hooks.example/@127.0.0.1/", "hooks.example"),
        ("https://hooks.example:443/%0d%0ahost:%20evil", "hooks.example"),
    ],
)
def test_the_name_that_is_asked_is_the_name_that_is_meant(
    authority: Authority, receiver: HttpSink, dialled: list[str], url: str, name: str
) -> None:
    with NameServer({name: [[PUBLIC]]}) as names, closing(_guarded(names, authority)) as http:
        assert http.post(url, b"", {}).status_code == 200

    assert names.asked == [name]
    assert dialled == [PUBLIC]
    assert [request.headers["host"] for request in receiver.requests] == [name]


def test_the_next_address_is_dialled_and_its_certificate_is_for_the_name(
    authority: Authority, dialled: list[str]
) -> None:
    with (
        NameServer(
            {"hooks.example": [["1.1.1.1", PUBLIC_6]], "other.example": [[PUBLIC]]}
        ) as names,
        closing(_guarded(names, authority)) as http,
    ):
        assert http.post(HOOK, b"", {}).status_code == 200
        with pytest.raises(ChannelUnavailable, match="certificate"):
            http.post("https://other.example/token", b"", {})

    assert dialled == ["1.1.1.1", PUBLIC_6, PUBLIC]


@pytest.mark.parametrize("found", [[], None])
def test_a_name_without_an_address_is_unavailable(
    authority: Authority, dialled: list[str], found: list[str] | None
) -> None:
    zone = {} if found is None else {"hooks.example": [found]}
    with (
        NameServer(zone) as names,
        closing(_guarded(names, authority)) as http,
        pytest.raises(ChannelUnavailable, match="could not be resolved"),
    ):
        http.post(HOOK, b"", {})

    assert dialled == []


def test_a_name_server_that_never_answers_meets_the_deadline(
    authority: Authority, dialled: list[str]
) -> None:
    began = time.monotonic()
    with (
        NameServer({"hooks.example": [[PUBLIC]]}, silent=True) as names,
        closing(_guarded(names, authority, timeout_s=0.2)) as http,
        pytest.raises(ChannelUnavailable, match="did not finish within"),
    ):
        http.post(HOOK, b"", {})

    assert time.monotonic() - began < 10
    assert dialled == []


def test_a_server_that_never_ends_its_handshake_meets_the_deadline(authority: Authority) -> None:
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            # The head of a TLS record that promises more than ever comes, byte by byte.
            for byte in b"\x16\x03\x03\x3f\xff" + b"\x00" * 500:
                if over.wait(0.02):
                    return
                connection.sendall(bytes((byte,)))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/token"
        http = GuardedHttp(allow=["127.0.0.1"], timeout_s=0.3, ssl_context=authority.trusted())
        began = time.monotonic()
        with closing(http), pytest.raises(ChannelUnavailable, match="did not finish within"):
            http.post(url, b"", {})
        over.set()
        thread.join()

    assert time.monotonic() - began < 5


def test_an_exempt_name_may_lead_inside_and_only_at_its_port(dialled: list[str]) -> None:
    with NameServer({"wiki.internal": [["10.0.0.7"]]}) as names:
        http = GuardedHttp(allow=["wiki.internal:8443"], resolve=names.resolve, timeout_s=20)
        with closing(http):
            with pytest.raises(ChannelUnavailable):  # dialled, and nobody there
                http.post("https://wiki.internal:8443/hook", b"", {})
            with pytest.raises(DestinationForbidden):
                http.post("https://wiki.internal/hook", b"", {})

    assert dialled == ["10.0.0.7"]


def test_the_address_of_an_exempt_name_is_not_exempt_itself(dialled: list[str]) -> None:
    with NameServer({"wiki.internal": [["10.0.0.7"]]}) as names:
        http = GuardedHttp(allow=["wiki.internal"], resolve=names.resolve, timeout_s=20)
        with closing(http), pytest.raises(DestinationForbidden):
            http.post("https://10.0.0.7/hook", b"", {})

    assert dialled == []
