"""How far the group is behind, on an in-process server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.errors import StreamUnavailable
from tasks.lag import StreamLag, read_lag

STREAM = "scans:events"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def add(client: Any, seconds_ago: int) -> bytes:
    entry_id: bytes = client.xadd(
        STREAM, {"data": "{}"}, id=f"{int(NOW.timestamp() - seconds_ago) * 1000}-0"
    )
    return entry_id


def lag() -> StreamLag:
    (found,) = read_lag("redis://unused", [STREAM], "scanherald", NOW)
    return found


def test_a_stream_that_is_not_there_is_empty(client: Any, join: Any) -> None:
    (found,) = read_lag("redis://unused", ["other"], "scanherald", NOW)
    assert found == StreamLag("other", 0, 0, 0, None, 0)


def test_without_a_group_every_entry_is_unread(client: Any, join: Any) -> None:
    join()
    client.xgroup_destroy(STREAM, "scanherald")
    add(client, 60)
    add(client, 30)
    assert lag() == StreamLag(STREAM, 2, 2, 0, 60.0, 0)


def test_the_oldest_of_unread_and_pending_counts(client: Any, join: Any) -> None:
    consumer = join()
    for seconds in (90, 60, 30):
        add(client, seconds)
    assert (lag().unread, lag().pending, lag().oldest_s) == (3, 0, 90.0)
    taken = consumer.read_new(2)
    assert (lag().unread, lag().pending, lag().oldest_s, lag().consumers) == (1, 2, 90.0, 1)
    consumer.ack(taken)
    assert (lag().unread, lag().pending, lag().oldest_s) == (1, 0, 30.0)
    consumer.ack(consumer.read_new(1))
    assert lag() == StreamLag(STREAM, 3, 0, 0, None, 1)


def test_looking_leaves_everything_as_it_is(client: Any, join: Any) -> None:
    consumer = join()
    add(client, 30)
    (entry,) = consumer.read_new(1)
    lag()
    assert consumer.deliveries_of([entry]) == {(STREAM, entry.entry_id): 1}


def test_a_server_that_is_away_is_told() -> None:
    with pytest.raises(StreamUnavailable):
        read_lag("redis://127.0.0.1:1", [STREAM], "scanherald", NOW)
