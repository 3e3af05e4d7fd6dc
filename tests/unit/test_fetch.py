"""A claim check redeemed: what may be fetched, how much of it, and what follows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from channels.guarded_http import GuardedHttp
from schemas.errors import (
    BrokerUnavailable,
    ChannelUnavailable,
    DataUnavailable,
    DestinationForbidden,
    InvalidEvent,
    TooLarge,
)
from schemas.runs import RunState, RunTicket
from store import runs
from tasks import fetch as fetching
from tasks.fetch import fetch, fetch_data, redeem
from tasks.sweep import sweep_once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "allowed").mkdir()
    return tmp_path / "allowed"


@pytest.fixture
def fetching_parts(make_parts: Callable[..., Any], folder: Path) -> Any:
    return make_parts(
        dataref_file_roots=(folder,), dataref_buckets=("s3://scans",), max_entry_bytes=4096
    )


class Http:
    """Stands in for the guarded transport."""

    answer: bytes | Exception = b""
    asked: list[tuple[str, int]]

    def __init__(self, *, allow: Any, timeout_s: float) -> None:
        self.closed = False

    def get(self, url: str, max_bytes: int) -> bytes:
        Http.asked.append((url, max_bytes))
        if isinstance(Http.answer, Exception):
            raise Http.answer
        return Http.answer

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> type[Http]:
    assert {"get", "close"} <= set(dir(GuardedHttp))
    Http.asked = []
    monkeypatch.setattr(fetching, "GuardedHttp", Http)
    return Http


@pytest.mark.parametrize(
    ("dataref", "words"),
    [
        ("ftp://host.example/a", "scheme 'ftp' is not supported"),
        ("/etc/passwd", "scheme '' is not supported"),
        ("", "scheme '' is not supported"),
        ("https://[bad/", "is no URL$"),
        ("https://u:hunter2@h\u2100st/", "is no URL$"),
        ("s3://bucket", "must be like s3://bucket/key"),
        ("gs:///key", "must be like s3://bucket/key"),
        ("file:///etc/passwd", "outside the allowed folders"),
        ("file:///a%00b", "is no path"),
    ],
)
def test_a_reference_that_cannot_be_right_breaks_the_contract(
    fetching_parts: Any, dataref: str, words: str
) -> None:
    with pytest.raises(InvalidEvent, match=words):
        fetch(dataref, fetching_parts.settings)


def test_a_file_below_an_allowed_folder_is_read(fetching_parts: Any, folder: Path) -> None:
    (folder / "a scan.json").write_bytes(b'{"a": 1}')
    found = fetch((folder / "a scan.json").as_uri(), fetching_parts.settings)
    assert found == b'{"a": 1}'


def test_without_allowed_folders_no_file_is_read(make_parts: Any, folder: Path) -> None:
    (folder / "a").write_bytes(b"{}")
    with pytest.raises(InvalidEvent, match="SCANHERALD_DATAREF_FILE_ROOTS"):
        fetch((folder / "a").as_uri(), make_parts().settings)


@pytest.mark.parametrize("way_out", ["link", "dots", "quoted dots"])
def test_no_way_leads_out_of_the_allowed_folder(
    fetching_parts: Any, folder: Path, tmp_path: Path, way_out: str
) -> None:
    (tmp_path / "secret").write_bytes(b"{}")
    (folder / "link").symlink_to(tmp_path / "secret")
    path = {"link": "link", "dots": "../secret", "quoted dots": "%2e%2e/secret"}[way_out]
    with pytest.raises(InvalidEvent, match="outside the allowed folders"):
        fetch(f"file://{folder}/{path}", fetching_parts.settings)


def test_a_folder_whose_name_only_begins_alike_is_outside(
    fetching_parts: Any, folder: Path
) -> None:
    other = folder.with_name("allowed-not")
    other.mkdir()
    (other / "a").write_bytes(b"{}")
    with pytest.raises(InvalidEvent, match="outside"):
        fetch((other / "a").as_uri(), fetching_parts.settings)


def test_links_in_a_circle_lead_nowhere(fetching_parts: Any, folder: Path) -> None:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    with pytest.raises(InvalidEvent):
        fetch((folder / "a").as_uri(), fetching_parts.settings)


def test_a_missing_file_breaks_the_contract(fetching_parts: Any, folder: Path) -> None:
    with pytest.raises(InvalidEvent, match=r"there is no file gone\.json"):
        fetch((folder / "gone.json").as_uri(), fetching_parts.settings)


def test_what_is_there_and_cannot_be_read_may_be_readable_later(
    fetching_parts: Any, folder: Path
) -> None:
    (folder / "sub").mkdir()
    with pytest.raises(DataUnavailable, match="sub"):
        fetch((folder / "sub").as_uri(), fetching_parts.settings)


def test_a_file_of_the_limit_is_read_and_one_byte_more_is_too_large(
    fetching_parts: Any, folder: Path
) -> None:
    (folder / "a").write_bytes(b"x" * 4096)
    assert len(fetch((folder / "a").as_uri(), fetching_parts.settings)) == 4096
    (folder / "a").write_bytes(b"x" * 4097)
    with pytest.raises(TooLarge, match="4,096 bytes"):
        fetch((folder / "a").as_uri(), fetching_parts.settings)


def test_empty_content_breaks_the_contract(fetching_parts: Any, folder: Path) -> None:
    (folder / "a").write_bytes(b" \n")
    with pytest.raises(InvalidEvent, match="content is empty"):
        fetch((folder / "a").as_uri(), fetching_parts.settings)


def test_https_goes_through_the_guarded_transport_with_the_size_limit(
    fetching_parts: Any, http: type[Http]
) -> None:
    http.answer = b"{}"
    assert fetch("HTTPS://scans.example/1", fetching_parts.settings) == b"{}"
    assert http.asked == [("HTTPS://scans.example/1", 4096)]


@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        (ChannelUnavailable("no answer", 7.0), DataUnavailable),
        (DestinationForbidden("a private address"), InvalidEvent),
        (TooLarge("too much"), TooLarge),
    ],
)
def test_the_transports_faults_are_told_as_the_datarefs(
    fetching_parts: Any, http: type[Http], fault: Exception, meaning: type[Exception]
) -> None:
    http.answer = fault
    with pytest.raises(meaning, match=str(fault)) as caught:
        fetch("https://scans.example/1", fetching_parts.settings)
    if isinstance(caught.value, DataUnavailable):
        assert caught.value.retry_after == 7.0


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore()
    monkeypatch.setattr(obstore.store, "from_url", lambda url, **_: {"s3://scans": store}[url])
    return store


def test_an_object_is_read_within_the_limit(fetching_parts: Any, bucket: MemoryStore) -> None:
    obstore.put(bucket, "a/b c.json", b"{}")
    assert fetch("s3://scans/a/b%20c.json", fetching_parts.settings) == b"{}"
    obstore.put(bucket, "big", b"x" * 4097)
    with pytest.raises(TooLarge):
        fetch("s3://scans/big", fetching_parts.settings)
    with pytest.raises(InvalidEvent, match="no object gone in scans"):
        fetch("s3://scans/gone", fetching_parts.settings)


def test_a_bucket_that_nobody_allowed_is_not_asked(parts: Any) -> None:
    with pytest.raises(InvalidEvent, match="SCANHERALD_DATAREF_BUCKETS"):
        fetch("s3://other/a", parts.settings)


def test_a_bucket_that_cannot_be_asked_may_answer_later(
    fetching_parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(url: str, **_: object) -> None:
        raise OSError("name resolution\nwith a second line")

    monkeypatch.setattr(obstore.store, "from_url", fail)
    with pytest.raises(DataUnavailable) as caught:
        fetch("s3://scans/a", fetching_parts.settings)
    assert str(caught.value) == "dataref: name resolution"


def run_of(parts: Any, run_id: str) -> Any:
    with parts.ledger.read() as connection:
        return runs.load_run(connection, run_id)


def test_redeeming_records_the_scan_and_asks_for_the_chord_under_the_same_attempt(
    fetching_parts: Any, folder: Path, make_scan: Any, record: Any, rows: Any
) -> None:
    (folder / "a").write_bytes(make_scan())
    ticket = record(fetching_parts, dataref=(folder / "a").as_uri())
    assert ticket.needs_data
    redeemed = redeem(fetching_parts, ticket.run_id, 1)
    assert redeemed == RunTicket(
        ticket.run_id,
        1,
        fetching_parts.settings.formats,
        needs_data=False,
        data_bytes=len(make_scan()),
    )
    run = run_of(fetching_parts, ticket.run_id)
    assert run.data == make_scan()
    assert run.scan_id == rows(fetching_parts, "scans")[0]["scan_id"]
    assert run.state is RunState.DISPATCHED


def test_what_was_fetched_is_not_fetched_again(
    fetching_parts: Any, folder: Path, make_scan: Any, record: Any
) -> None:
    (folder / "a").write_bytes(make_scan())
    ticket = record(fetching_parts, dataref=(folder / "a").as_uri())
    redeem(fetching_parts, ticket.run_id, 1)
    (folder / "a").unlink()
    again = redeem(fetching_parts, ticket.run_id, 2)
    assert again is not None
    assert again.attempt == 2


def test_a_settled_run_is_not_fetched(
    fetching_parts: Any, folder: Path, record: Any, dispatched: list[RunTicket], clock: Any
) -> None:
    ticket = record(fetching_parts, dataref=(folder / "gone").as_uri())
    with fetching_parts.ledger.write() as connection:
        runs.settle_dead(connection, ticket.run_id, "given up", clock())
    assert redeem(fetching_parts, ticket.run_id, 1) is None
    fetch_data.apply((ticket.run_id, 1)).get()
    assert dispatched == []


def test_other_events_data_is_fetched_too(fetching_parts: Any, folder: Path, record: Any) -> None:
    (folder / "a").write_bytes(b'{"error":"DNS"}')
    ticket = record(fetching_parts, dataref=(folder / "a").as_uri(), type="scan.failed")
    redeemed = redeem(fetching_parts, ticket.run_id, 1)
    assert redeemed is not None
    assert redeemed.formats == ()
    assert run_of(fetching_parts, ticket.run_id).data == b'{"error":"DNS"}'


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("scan.completed", b"{nope", "not JSON"),
        ("scan.completed", b'{"domain":"a.example"}', "scan_id"),
        ("scan.failed", b"[1]", "`data`"),
        ("scan.completed", b" ", "empty"),
    ],
)
def test_content_that_breaks_the_contract_makes_the_event_dead_with_a_reason(
    fetching_parts: Any,
    folder: Path,
    record: Any,
    rows: Any,
    dispatched: list[RunTicket],
    kind: str,
    content: bytes,
    words: str,
) -> None:
    (folder / "a").write_bytes(content)
    ticket = record(fetching_parts, dataref=(folder / "a").as_uri(), type=kind)
    fetch_data.apply((ticket.run_id, 1)).get()
    (event,) = rows(fetching_parts, "events")
    (run,) = rows(fetching_parts, "runs")
    assert (event["outcome"], run["state"]) == ("dead", "dead")
    assert words in event["reason"]
    assert dispatched == []


def test_a_server_that_does_not_answer_is_asked_again_and_then_left_to_the_sweep(
    fetching_parts: Any,
    http: type[Http],
    record: Any,
    rows: Any,
    clock: Any,
    dispatched: list[RunTicket],
) -> None:
    http.answer = ChannelUnavailable("https://scans.example did not finish within 10 s")
    ticket = record(fetching_parts, dataref="https://scans.example/1")
    fetch_data.apply((ticket.run_id, 1)).get()
    assert len(http.asked) == 4
    (run,) = rows(fetching_parts, "runs")
    said = "dataref: https://scans.example did not finish within 10 s, in 4 tries"
    assert (run["state"], run["last_error"], run["settling"]) == ("recorded", said, 0)
    assert dispatched == []
    clock.forward(fetching_parts.settings.retry_max_s + 1)
    sweep_once(fetching_parts)
    assert [(ticket.attempt, ticket.needs_data) for ticket in dispatched] == [(2, True)]


def test_a_fetch_that_kills_its_worker_is_given_up(
    fetching_parts: Any, record: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    deaths = []

    def die(*_: Any) -> None:
        deaths.append(1)
        raise Killed

    monkeypatch.setattr(sys.modules["tasks.fetch"], "fetch", die)
    ticket = record(fetching_parts, dataref="https://scans.example/1")
    limit = fetching_parts.settings.render_max_tries
    for _ in range(limit):
        with pytest.raises(Killed):
            fetch_data.apply((ticket.run_id, 1)).get()
    fetch_data.apply((ticket.run_id, 1)).get()
    assert len(deaths) == limit
    (run,) = rows(fetching_parts, "runs")
    assert (run["state"], "given up as poison" in run["last_error"]) == ("dead", True)


def test_a_server_that_answers_late_costs_nothing(
    fetching_parts: Any,
    http: type[Http],
    make_scan: Any,
    record: Any,
    dispatched: list[RunTicket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Any] = [ChannelUnavailable("busy"), ChannelUnavailable("busy"), make_scan()]

    def get(self: Http, url: str, max_bytes: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bytes(answer)

    monkeypatch.setattr(Http, "get", get)
    ticket = record(fetching_parts, dataref="https://scans.example/1")
    fetch_data.apply((ticket.run_id, 1)).get()
    assert [(item.run_id, item.attempt) for item in dispatched] == [(ticket.run_id, 1)]


def test_a_broker_outage_after_fetching_leaves_the_run_to_the_sweep(
    fetching_parts: Any,
    folder: Path,
    make_scan: Any,
    record: Any,
    clock: Any,
    dispatched: list[RunTicket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Any) -> None:
        raise BrokerUnavailable("broker: refused")

    (folder / "a").write_bytes(make_scan())
    ticket = record(fetching_parts, dataref=(folder / "a").as_uri())
    monkeypatch.setattr(fetching, "dispatch", fail)
    fetch_data.apply((ticket.run_id, 1)).get()
    clock.forward(fetching_parts.settings.run_deadline_s + 1)
    sweep_once(fetching_parts)
    assert dispatched == [
        RunTicket(ticket.run_id, 2, fetching_parts.settings.formats, needs_data=False)
    ]


def test_the_chord_of_a_fetched_scan_has_ids_of_run_format_and_attempt(
    fetching_parts: Any, broker: Any, folder: Path, make_scan: Any, record: Any
) -> None:
    (folder / "a").write_bytes(make_scan())
    ticket = record(fetching_parts, dataref=(folder / "a").as_uri())
    fetch_data.apply((ticket.run_id, 3)).get()
    with broker.connection_for_read() as connection:
        channel = connection.channel()
        messages = [channel.basic_get("reports", no_ack=True) for _ in range(5)]
    assert messages.pop() is None
    assert {message.headers["id"] for message in messages} == {
        f"{ticket.run_id}:{name}:a3" for name in ("pdf", "html", "json", "csv")
    }
    assert len({message.headers["group"] for message in messages}) == 1
    assert all(b"shop.example" not in message.body for message in messages)
