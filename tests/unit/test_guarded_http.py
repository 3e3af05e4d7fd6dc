"""The guarded transport: where it refuses to go, and what it refuses to wait for."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpcore
import pytest

from channels.guarded_http import GuardedHttp
from cli.sinks import HttpSink, SinkAnswer
from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    DestinationForbidden,
    InvalidSettings,
    RateLimited,
    TooLarge,
)

PUBLIC = "93.184.215.14"
REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
]


class Resolver:
    """Answers each look-up with the next list of addresses, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    def __call__(self, host: str, port: int, *, type: int) -> list[tuple[Any, ...]]:
        self.asked.append((host, port))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in found]


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a socket would have been opened to; none is."""
    dialled: list[str] = []

    def connect_tcp(self: object, host: str, *_: object, **__: object) -> httpcore.NetworkStream:
        dialled.append(host)
        raise httpcore.ConnectError("nobody there")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    return dialled


@pytest.mark.parametrize("address", REFUSED)
def test_a_name_that_leads_inside_is_refused_before_anything_is_opened(
    address: str, dialled: list[str]
) -> None:
    with (
        closing(GuardedHttp(resolve=Resolver([address]))) as http,
        pytest.raises(DestinationForbidden),
    ):
        http.post("https://innocent.example/hook", b"", {})

    assert dialled == []


@pytest.mark.parametrize(
    "address", ["1.1.1.1", PUBLIC, "172.32.0.1", "2606:4700::1", "::ffff:8.8.8.8"]
)
def test_a_public_address_is_dialled(address: str, dialled: list[str]) -> None:
    with (
        closing(GuardedHttp(resolve=Resolver([address]))) as http,
        pytest.raises(ChannelUnavailable),
    ):
        http.post("https://innocent.example/hook", b"", {})

    assert dialled == [address]


def test_one_inside_address_among_public_ones_refuses_the_name(dialled: list[str]) -> None:
    addresses = [f"1.1.1.{last}" for last in range(20)] + ["10.0.0.1"]
    with (
        closing(GuardedHttp(resolve=Resolver(addresses))) as http,
        pytest.raises(DestinationForbidden),
    ):
        http.post("https://innocent.example/hook", b"", {})

    assert dialled == []


def test_the_name_is_looked_up_once_and_the_checked_address_is_dialled(dialled: list[str]) -> None:
    rebinding = Resolver([PUBLIC], ["127.0.0.1"])
    with closing(GuardedHttp(resolve=rebinding)) as http:
        with pytest.raises(ChannelUnavailable):
            http.post("https://rebinding.example:8443/hook", b"", {})
        assert rebinding.asked == [("rebinding.example", 8443)]
        assert dialled == [PUBLIC]

        with pytest.raises(DestinationForbidden):
            http.post("https://rebinding.example:8443/hook", b"", {})
        assert dialled == [PUBLIC]


def test_the_next_address_is_dialled_when_the_first_is_dead(dialled: list[str]) -> None:
    with (
        closing(GuardedHttp(resolve=Resolver(["1.1.1.1", "1.0.0.1", "1.1.1.1"]))) as http,
        pytest.raises(ChannelUnavailable),
    ):
        http.post("https://innocent.example/hook", b"", {})

    assert dialled == ["1.1.1.1", "1.0.0.1"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "0",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[::1%25lo]",
        "１２７.０.０.１",
        "127。0。0。1",
        "ⓛocalhost",
        "①②⑦.0.0.1",
        "127.0.0.1%00.example.org",
        "127.0.0.1%2f.example.org",
        "exa mple.org",
        "*",
        "",
        "a..example",
        "x" * 64 + ".example",
    ],
)
def test_no_spelling_of_this_machine_slips_through_the_real_resolver(
    host: str, dialled: list[str]
) -> None:
    with closing(GuardedHttp()) as http, pytest.raises(DestinationForbidden):
        http.post(f"https://{host}/hook", b"", {})

    assert dialled == []


@pytest.mark.parametrize(
    "url",
    [
        "http://innocent.example/token",
        "ftp://innocent.example/token",
        "file:///etc/token",
        "gopher://innocent.example/token",
        "//innocent.example/token",
        "innocent.example/token",
        "https:///token",
        "https://user:token@innocent.example/",
        "https://token@innocent.example/",
        "https://innocent.example\\@other.example/token",
        "https://user:token",
        "https://innocent.example:0/token",
        "https://innocent.example:65536/token",
        "https://innocent.example:token/",
        "https://innocent.example/token\r\nhost: evil",
        "https://innocent.example/\ud800token",
        "",
    ],
)
def test_a_url_of_another_shape_is_refused_without_being_shown(
    url: str, dialled: list[str]
) -> None:
    resolver = Resolver([PUBLIC])
    with (
        closing(GuardedHttp(resolve=resolver)) as http,
        pytest.raises(DestinationForbidden) as caught,
    ):
        http.post(url, b"", {})

    assert "token" not in f"{caught.value} {caught.value.__cause__}"
    assert resolver.asked == []
    assert dialled == []


def test_an_unknown_name_is_unavailable() -> None:
    def resolve(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with (
        closing(GuardedHttp(resolve=resolve)) as http,
        pytest.raises(ChannelUnavailable, match="could not be resolved"),
    ):
        http.post("https://innocent.example/token", b"", {})


def test_a_name_without_addresses_is_unavailable() -> None:
    with (
        closing(GuardedHttp(resolve=Resolver([]))) as http,
        pytest.raises(ChannelUnavailable, match="no address"),
    ):
        http.post("https://innocent.example/token", b"", {})


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with HttpSink() as sink:
        yield sink


@pytest.fixture
def http(sink: HttpSink) -> Iterator[GuardedHttp]:
    with closing(GuardedHttp(allow=[f"127.0.0.1:{sink.port}"], timeout_s=20)) as http:
        yield http


@pytest.mark.parametrize(
    "entry", ["127.0.0.1:{port}", "127.0.0.1", "LocalHost:{port}", "localhost."]
)
def test_an_exempt_destination_is_reached_by_plain_http(sink: HttpSink, entry: str) -> None:
    host = "127.0.0.1" if entry.startswith("1") else "localhost"
    with closing(GuardedHttp(allow=[entry.format(port=sink.port)])) as http:
        assert http.post(f"http://{host}:{sink.port}/slack", b"{}", {}).text_excerpt == "ok"

    assert sink.requests[0].headers["host"] == f"{host}:{sink.port}"


@pytest.mark.parametrize("entry", ["127.0.0.1:1", "127.0.0.2", "0.0.1", "example.org"])
def test_an_exemption_covers_no_other_port_or_host(sink: HttpSink, entry: str) -> None:
    with closing(GuardedHttp(allow=[entry])) as http:
        for scheme in ("http", "https"):
            with pytest.raises(DestinationForbidden):
                http.post(f"{scheme}://127.0.0.1:{sink.port}/", b"", {})

    assert sink.requests == ()


def test_an_exempt_address_of_version_six_stands_in_brackets() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = listening.getsockname()[1]
    with (
        _serving(listening, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"),
        closing(GuardedHttp(allow=[f"[::1]:{port}"])) as http,
    ):
        assert http.post(f"http://[::1]:{port}/", b"", {}).text_excerpt == "hi"


@pytest.mark.parametrize("entry", ["http://a", "a/b", "a:b", "[::1", "::1", "u@a", ""])
def test_an_exemption_that_is_no_destination_is_named(entry: str) -> None:
    with pytest.raises(InvalidSettings, match="SCANHERALD_HTTP_ALLOW"):
        GuardedHttp(allow=[entry])


def test_a_redirect_is_refused_and_not_followed(sink: HttpSink, http: GuardedHttp) -> None:
    for status in (301, 302, 303, 307, 308):
        sink.script(SinkAnswer(status, {"location": f"{sink.url}/elsewhere"}))
        with pytest.raises(DeliveryRejected, match="redirects are refused") as caught:
            http.post(f"{sink.url}/here", b"", {})
        assert caught.value.status_code == status

    assert {request.path for request in sink.requests} == {"/here"}


def test_the_environment_sets_no_proxy(
    sink: HttpSink, http: GuardedHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert http.post(f"{sink.url}/slack", b"", {}).status_code == 200


def test_a_cookie_that_was_set_is_not_sent_back(sink: HttpSink, http: GuardedHttp) -> None:
    sink.script(SinkAnswer(200, {"set-cookie": "session=1"}))
    http.post(f"{sink.url}/a", b"", {})
    http.post(f"{sink.url}/b", b"", {})

    assert "cookie" not in sink.requests[1].headers


@pytest.mark.parametrize("name", ["x-id", "x-id\r\nx-evil"])
@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "ü"])
def test_a_header_with_a_line_break_is_never_sent(
    sink: HttpSink, http: GuardedHttp, name: str, value: str
) -> None:
    with pytest.raises(DeliveryRejected, match="header"):
        http.post(sink.url, b"", {name: value})

    assert sink.requests == ()


def test_a_path_with_a_token_is_blanked_out_of_the_answer(
    sink: HttpSink, http: GuardedHttp
) -> None:
    sink.script(SinkAnswer(404, {}, b"Cannot POST /T0/b0/SECRET?key=hidden (key=hidden)"))
    with pytest.raises(DeliveryRejected) as caught:
        http.post(f"{sink.url}/T0/B0/secret?key=hidden", b"", {})

    assert caught.value.receipt == "Cannot POST … (…)"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/services/T0/B0/s3cr3t", b"no team has the hook S3CR3T"),
        ("/hook?token=s3cr3t", b"token s3cr3t is unknown"),
        ("/hook?s3cr3t", b"what is s3cr3t?"),
        ("/hook?a=1&token=s3cr3t%2B%3D", b"s3cr3t+= is unknown, as is s3cr3t%2B%3D"),
        ("/hook?token=s3cr3t+more", b"s3cr3t more, more s3cr3t"),
        ("/bot12:s3cr3t/send", b"s3cr3t is no bot"),
        ("/s3cr%65t", b"s3cret, s3cr%65t"),
    ],
)
def test_each_part_of_a_url_is_blanked_out_where_the_answer_repeats_it_alone(
    sink: HttpSink, http: GuardedHttp, url: str, said: bytes
) -> None:
    sink.script(SinkAnswer(200, {}, said), SinkAnswer(403, {}, said))
    taken = http.post(f"{sink.url}{url}", b"", {}).text_excerpt
    with pytest.raises(DeliveryRejected) as caught:
        http.post(f"{sink.url}{url}", b"", {})

    assert "s3cr" not in taken.lower()
    assert "…" in taken
    assert caught.value.receipt == taken


def test_the_name_of_a_querys_value_can_be_read_in_the_answer(
    sink: HttpSink, http: GuardedHttp
) -> None:
    sink.script(SinkAnswer(200, {}, b"the token is unknown: abcd"))

    assert http.post(f"{sink.url}/x?token=abcd", b"", {}).text_excerpt == "the token is unknown: …"


def test_retry_after_is_measured_by_the_answers_own_clock_or_by_ours(sink: HttpSink) -> None:
    now = datetime(2026, 3, 4, 5, 0, 0, tzinfo=UTC)
    allow = [f"127.0.0.1:{sink.port}"]
    cases: list[tuple[str, str, float | None]] = [
        ("120", "", 120),
        ("0", "", 0),
        ("9" * 5000, "", 86_400),
        ("Wed, 04 Mar 2026 05:01:00 GMT", "not a date", 60),
        ("Wed, 04 Mar 2026 05:01:00 GMT", "Wed, 04 Mar 2026 05:00:50 GMT", 10),
        ("Wed, 04 Mar 2026 04:00:00 GMT", "not a date", 0),
        ("Wed, 04 Mar 2099 04:00:00 GMT", "not a date", 86_400),
        ("Wednesday, 04-Mar-26 05:01:00 GMT", "not a date", 60),
        ("-5", "", None),
        ("1.5", "", None),
        ("soon", "", None),
        ("²", "", None),
    ]
    with closing(GuardedHttp(allow=allow, clock=lambda: now)) as http:
        for value, date, expected in cases:
            answer = SinkAnswer(429, {"retry-after": value.encode().decode("latin-1")})
            sink.script(
                SinkAnswer(429, {**answer.headers, "date": date} if date else answer.headers)
            )
            with pytest.raises(RateLimited) as caught:
                http.post(sink.url, b"", {})
            assert caught.value.retry_after == expected, value


def test_get_returns_the_whole_body_up_to_its_bound(sink: HttpSink, http: GuardedHttp) -> None:
    data = bytes(range(256)) * 1000
    sink.script(SinkAnswer(body=data), SinkAnswer(body=data), SinkAnswer(body=b""))

    assert http.get(f"{sink.url}/scan", len(data)) == data
    with pytest.raises(TooLarge, match="more than 255,999 bytes"):
        http.get(f"{sink.url}/scan", len(data) - 1)
    assert http.get(f"{sink.url}/scan", 0) == b""
    assert [request.method for request in sink.requests] == ["GET"] * 3


def test_get_reads_a_status_like_post(sink: HttpSink, http: GuardedHttp) -> None:
    sink.script(SinkAnswer(503), SinkAnswer(404), SinkAnswer(302))

    with pytest.raises(ChannelUnavailable):
        http.get(sink.url, 10)
    for _ in range(2):
        with pytest.raises(DeliveryRejected):
            http.get(sink.url, 10)


def test_compressed_data_is_neither_asked_for_nor_unpacked(
    sink: HttpSink, http: GuardedHttp
) -> None:
    bomb = gzip.compress(b"A" * 10_000_000)
    answer = SinkAnswer(200, {"content-encoding": "gzip"}, bomb)
    sink.script(answer, answer)

    assert "AAAA" not in http.post(sink.url, b"", {}).text_excerpt
    with pytest.raises(DeliveryRejected, match="compressed"):
        http.get(sink.url, 1_000_000)
    assert {request.headers["accept-encoding"] for request in sink.requests} == {"identity"}


def test_an_answer_that_never_ends_is_read_up_to_its_bound() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:  # until the client hangs up
            connection.sendall(b"x" * 4096)

    with _talking(talk) as port, closing(_local(port)) as http:
        assert http.post(f"http://127.0.0.1:{port}/", b"", {}).text_excerpt.startswith("xxxx")
        with pytest.raises(TooLarge):
            http.get(f"http://127.0.0.1:{port}/", 100_000)


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"]
)
def test_an_answer_that_is_not_http_is_unavailable(answer: bytes) -> None:
    with (
        _talking(lambda connection: connection.sendall(answer)) as port,
        closing(_local(port)) as http,
        pytest.raises(ChannelUnavailable) as caught,
    ):
        http.post(f"http://127.0.0.1:{port}/token", b"", {})

    assert "token" not in str(caught.value)


def test_an_endless_head_of_an_answer_is_unavailable() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"x-filler: " + b"x" * 4000 + b"\r\n")

    with _talking(talk) as port, closing(_local(port)) as http, pytest.raises(ChannelUnavailable):
        http.post(f"http://127.0.0.1:{port}/", b"", {})


@pytest.mark.parametrize("part", ["head", "body"])
def test_an_answer_that_drips_byte_by_byte_meets_the_deadline(part: str) -> None:
    # Every byte comes well within the time for one step; all of them would take much longer.
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n" + b"x" * 400
    hung_up = threading.Event()

    def talk(connection: socket.socket) -> None:
        head, body = answer[:40], answer[40:]
        if part == "body":
            connection.sendall(head)
        for byte in body if part == "body" else answer:
            if hung_up.wait(0.02):
                return
            connection.sendall(bytes((byte,)))

    with _talking(talk) as port, closing(_local(port, timeout_s=0.3)) as http:
        with pytest.raises(ChannelUnavailable, match="did not finish within"):
            http.post(f"http://127.0.0.1:{port}/", b"", {})
        hung_up.set()


def test_a_step_that_starts_after_the_deadline_is_not_taken(sink: HttpSink) -> None:
    with (
        closing(_local(sink.port, timeout_s=0)) as http,
        pytest.raises(ChannelUnavailable, match="did not finish within"),
    ):
        http.post(sink.url, b"", {})

    assert sink.requests == ()


def test_a_connection_is_kept_for_the_next_request() -> None:
    accepted: list[object] = []

    def talk(connection: socket.socket) -> None:
        accepted.append(connection)
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with _talking(talk) as port, closing(_local(port)) as http:
        for _ in range(3):
            http.post(f"http://127.0.0.1:{port}/", b"", {})

    assert len(accepted) == 1


def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.shutdown(socket.SHUT_RDWR)
        gone.set()

    gone = threading.Event()
    with _talking(talk) as port, closing(_local(port)) as http:
        for _ in range(3):
            assert http.post(f"http://127.0.0.1:{port}/", b"", {}).status_code == 204
            assert gone.wait(20)
            gone.clear()


def _local(port: int, timeout_s: float = 20) -> GuardedHttp:
    return GuardedHttp(allow=[f"127.0.0.1:{port}"], timeout_s=timeout_s)


@contextmanager
def _talking(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server on this machine whose connections are given to ``talk``, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listening, _accepting(listening, talk):
        yield listening.getsockname()[1]


@contextmanager
def _serving(listening: socket.socket, answer: bytes) -> Iterator[None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with listening, _accepting(listening, talk):
        yield


@contextmanager
def _accepting(listening: socket.socket, talk: Callable[[socket.socket], object]) -> Iterator[None]:
    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test is over
            with connection:
                try:
                    talk(connection)
                except OSError:
                    continue  # the client hung up: what some of these tests are about

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
