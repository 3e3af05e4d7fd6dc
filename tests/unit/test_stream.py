"""Every Redis Streams command we use, on an in-process server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

from listener import publish
from listener.stream import EventStreams
from schemas.errors import StreamUnavailable
from schemas.runs import Entry

STREAM = "scans:events"


MUCH = 10**9


def ids(entries: list[Entry]) -> list[str]:
    return [entry.entry_id for entry in entries]


def add(client: Any, count: int, to: str = STREAM) -> list[str]:
    return [client.xadd(to, {"data": str(number)}).decode() for number in range(count)]


def age(client: Any, entry_ids: list[str], owner: str = "dead", **options: Any) -> None:
    """Make entries another consumer's, pending for ten minutes."""
    client.xclaim(STREAM, "scanherald", owner, 0, entry_ids, idle=600_000, **options)


def test_what_was_published_before_the_first_listener_is_read(client: Any, join: Any) -> None:
    published = add(client, 3)
    assert ids(join().read_new(10)) == published


def test_joining_again_keeps_the_groups_position(client: Any, join: Any) -> None:
    add(client, 2)
    assert len(join().read_new(10)) == 2
    later = add(client, 1)
    assert ids(join("two").read_new(10)) == later


def test_a_read_takes_at_most_count_entries_and_an_empty_one_returns_nothing(
    client: Any, join: Any
) -> None:
    published = add(client, 3)
    consumer = join()
    assert ids(consumer.read_new(2)) == published[:2]
    assert ids(consumer.read_new(2)) == published[2:]
    assert consumer.read_new(2) == []


def test_every_named_stream_is_read(client: Any, join: Any) -> None:
    first, second = add(client, 1, "a"), add(client, 1, "b")
    found = join(streams=("a", "b")).read_new(10)
    assert {(entry.stream, entry.entry_id) for entry in found} == {
        ("a", first[0]),
        ("b", second[0]),
    }


def test_an_entry_stays_pending_until_it_is_acknowledged(client: Any, join: Any) -> None:
    add(client, 2)
    consumer = join()
    entries = consumer.read_new(10)
    assert client.xpending(STREAM, "scanherald")["pending"] == 2
    consumer.ack(entries[:1])
    assert client.xpending(STREAM, "scanherald")["pending"] == 1


def test_acknowledgements_ride_with_the_next_read(client: Any, join: Any) -> None:
    add(client, 1)
    consumer = join()
    entries = consumer.read_new(10)
    later = add(client, 1)
    assert ids(consumer.read_new(10, entries)) == later
    left = client.xpending_range(STREAM, "scanherald", "-", "+", 10)
    assert [row["message_id"].decode() for row in left] == later


def test_own_pending_entries_are_read_page_by_page_after_the_last_id(
    client: Any, join: Any
) -> None:
    published = add(client, 3)
    join().read_new(10)
    again = join()
    assert ids(again.read_own_pending({}, 2)) == published[:2]
    assert ids(again.read_own_pending({STREAM: published[1]}, 2)) == published[2:]
    assert again.read_own_pending({STREAM: published[2]}, 2) == []


def test_another_consumers_pending_entries_are_not_ones_own(client: Any, join: Any) -> None:
    add(client, 1)
    join("one").read_new(10)
    assert join("two").read_own_pending({}, 10) == []


def test_only_entries_idle_for_long_enough_are_claimed(client: Any, join: Any) -> None:
    add(client, 2)
    old, _ = ids(join("dead").read_new(10))
    age(client, [old])
    assert ids(join().claim_idle(60_000, 10, MUCH)) == [old]


def test_the_claims_cursor_moves_on_and_comes_round_again(client: Any, join: Any) -> None:
    published = add(client, 3)
    join("dead").read_new(10)
    consumer = join()
    claimed = []
    for _ in range(5):
        age(client, published)  # what was claimed is claimable again
        claimed.append(ids(consumer.claim_idle(60_000, 1, MUCH)))
    first, second, third = published
    assert claimed == [[first], [second], [third], [], [first]]


def test_claims_stop_at_their_weight_and_go_on_from_there(client: Any, join: Any) -> None:
    published = [client.xadd(STREAM, {"data": b"x" * 100}).decode() for _ in range(5)]
    join("dead").read_new(10)
    age(client, published)
    consumer = join()
    assert ids(consumer.claim_idle(60_000, 10, 150)) == published[:2]
    assert ids(consumer.claim_idle(60_000, 10, 150)) == published[2:4]
    assert ids(consumer.claim_idle(60_000, 10, 150)) == published[4:]


def test_a_trimmed_entry_stays_pending_until_it_is_acknowledged(client: Any, join: Any) -> None:
    (entry_id,) = add(client, 1)
    join("dead").read_new(10)
    age(client, [entry_id])
    client.xtrim(STREAM, maxlen=0)
    killed_before_it_recorded = join("one").claim_idle(0, 10, MUCH)
    again = join("two").claim_idle(0, 10, MUCH)
    assert killed_before_it_recorded == again == [Entry(STREAM, entry_id, {})]
    join("two").ack(again)
    assert join("three").claim_idle(0, 10, MUCH) == []


def test_an_entry_that_its_consumer_has_taken_up_again_is_not_claimed(
    client: Any, join: Any
) -> None:
    published = add(client, 1)
    join("dead").read_new(10)
    age(client, published)
    late = join("late")
    client.xclaim(STREAM, "scanherald", "faster", 0, published)
    assert late._claim(STREAM, published[0], 60_000) is None


def test_a_trimmed_own_entry_comes_without_fields(client: Any, join: Any) -> None:
    published = add(client, 1)
    join().read_new(10)
    client.xtrim(STREAM, maxlen=0)
    assert join().read_own_pending({}, 10) == [Entry(STREAM, published[0], {})]


def test_a_trimmed_idle_entry_is_claimed_without_fields(client: Any, join: Any) -> None:
    published = add(client, 2)
    join("dead").read_new(10)
    age(client, published)
    client.xtrim(STREAM, maxlen=1, approximate=False)
    claimed = join().claim_idle(60_000, 10, MUCH)
    assert {entry.entry_id: dict(entry.fields) for entry in claimed} == {
        published[0]: {},
        published[1]: {b"data": b"1"},
    }


def test_deliveries_are_counted_per_entry(client: Any, join: Any) -> None:
    first, second = add(client, 2)
    consumer = join()
    entries = consumer.read_new(10)
    age(client, [second], owner="one", retrycount=7)
    assert consumer.deliveries_of(entries) == {(STREAM, first): 1, (STREAM, second): 7}


def test_a_group_that_is_gone_is_the_streams_unavailability(client: Any, join: Any) -> None:
    consumer = join()
    client.flushall()
    with pytest.raises(StreamUnavailable, match="redis: "):
        consumer.read_new(10)
    add(client, 1)
    consumer.ensure_groups()
    assert len(consumer.read_new(10)) == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda consumer: consumer.ensure_groups(),
        lambda consumer: consumer.read_new(1),
        lambda consumer: consumer.read_new(1, [Entry(STREAM, "1-0", {})]),
        lambda consumer: consumer.read_own_pending({}, 1),
        lambda consumer: consumer.claim_idle(1, 1, MUCH),
        lambda consumer: consumer.ack([Entry(STREAM, "1-0", {})]),
        lambda consumer: consumer.deliveries_of([Entry(STREAM, "1-0", {})]),
    ],
    ids=["join", "read", "read_and_ack", "own_pending", "claim", "ack", "deliveries"],
)
def test_a_lost_connection_is_the_streams_unavailability(
    server: fakeredis.FakeServer, join: Any, work: Callable[[EventStreams], object]
) -> None:
    consumer = join()
    server.connected = False
    with pytest.raises(StreamUnavailable, match="ConnectionError"):
        work(consumer)


def test_publishing_returns_the_entry_ids_in_order(client: Any, join: Any) -> None:
    consumer = join()
    published = publish.publish("redis://none", STREAM, [{"data": b"1"}, {"data": b"2"}])
    found = consumer.read_new(10)
    assert ids(found) == published
    assert [entry.fields[b"data"] for entry in found] == [b"1", b"2"]


def test_publishing_to_a_server_that_is_away_names_it_without_its_password(
    server: fakeredis.FakeServer, join: Any
) -> None:
    server.connected = False
    with pytest.raises(StreamUnavailable, match="redis at away:6379/0") as caught:
        publish.publish("redis://:s3cret@away:6379/0", STREAM, [{"data": b"1"}])
    assert "s3cret" not in str(caught.value)
