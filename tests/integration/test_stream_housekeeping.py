"""Trimming and forgetting consumers, on a real server: never what somebody still needs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from cli.embedded import free_port, valkey_part, wait_for_redis
from cli.supervisor import Supervisor
from listener.stream import EventStreams

STREAM, GROUP = "scans:events", "scanherald"
COUNT = 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("valkey")
    port = free_port()
    supervisor = Supervisor()
    supervisor.start(valkey_part(port, folder, folder / "log"))
    wait_for_redis(f"redis://127.0.0.1:{port}/0")
    yield port
    supervisor.stop()


@pytest.fixture
def client(server: int) -> Iterator[Any]:
    with contextlib.closing(redis.Redis(port=server, decode_responses=True)) as client:
        client.flushall()
        yield client


@pytest.fixture
def join(server: int) -> Iterator[Callable[..., EventStreams]]:
    with contextlib.ExitStack() as stack:

        def join(consumer: str = "one", group: str = GROUP) -> EventStreams:
            url = f"redis://127.0.0.1:{server}/0"
            joined = EventStreams(url, (STREAM,), group, consumer, block_ms=10)
            stack.callback(joined.close)
            joined.ensure_groups()
            return joined

        yield join


def fill(client: Any, count: int = COUNT) -> list[str]:
    pipe = client.pipeline(transaction=False)
    for number in range(count):
        pipe.xadd(STREAM, {"n": number})
    return [str(entry_id) for entry_id in pipe.execute()]


def finish(streams: EventStreams, count: int) -> None:
    """Read and acknowledge so many entries."""
    streams.ack(streams.read_new(count))


def left(client: Any) -> list[str]:
    return [entry_id for entry_id, _ in client.xrange(STREAM)]


def test_what_every_group_has_finished_goes(client: Any, join: Any) -> None:
    streams = join()
    fill(client)
    finish(streams, COUNT)
    trimmed = streams.trim(0)
    assert trimmed > COUNT - 110, "whole nodes of 100 entries go"
    assert len(left(client)) == COUNT - trimmed


def test_with_nothing_pending_and_one_group_behind_nothing_unread_goes(
    client: Any, join: Any
) -> None:
    ahead, behind = join(), join(group="archive")
    ids = fill(client)
    finish(ahead, COUNT)
    finish(behind, 400)
    assert client.xpending(STREAM, "archive")["pending"] == 0
    assert ahead.trim(0) > 0
    assert left(client)[-600:] == ids[400:]
    unread = behind.read_new(COUNT)
    assert [entry.entry_id for entry in unread] == ids[400:]
    assert all(entry.fields for entry in unread)


def test_a_group_that_has_read_nothing_keeps_everything(client: Any, join: Any) -> None:
    streams = join()
    join(group="archive")
    ids = fill(client)
    finish(streams, COUNT)
    assert streams.trim(0) == 0
    assert left(client) == ids


def test_one_old_pending_entry_keeps_itself_and_all_after_it(client: Any, join: Any) -> None:
    streams = join()
    ids = fill(client)
    entries = streams.read_new(COUNT)
    streams.ack([entry for entry in entries if entry.entry_id != ids[300]])
    assert streams.trim(0) > 0
    assert left(client)[-700:] == ids[300:]
    (pending,) = streams.read_own_pending({}, 10)
    assert (pending.entry_id, bool(pending.fields)) == (ids[300], True)


def test_a_group_that_was_set_back_keeps_what_it_has_to_read_again(client: Any, join: Any) -> None:
    streams = join()
    ids = fill(client)
    entries = streams.read_new(COUNT)
    streams.ack(entries[:-1])
    client.xgroup_setid(STREAM, GROUP, "0")
    assert streams.trim(0) == 0
    assert left(client) == ids


def test_entries_younger_than_the_retention_stay_for_replays(client: Any, join: Any) -> None:
    streams = join()
    ids = fill(client)
    finish(streams, COUNT)
    assert streams.trim(3600) == 0
    assert left(client) == ids


def test_ids_beyond_what_a_double_holds_are_compared_exactly(client: Any, join: Any) -> None:
    base = 2**63
    streams = join()
    for number in range(300):
        client.xadd(STREAM, {"n": number}, id=f"5-{base + number}")
    finish(streams, 150)
    streams.trim(0)
    assert left(client)[-150:] == [f"5-{base + number}" for number in range(150, 300)]


def test_a_stream_that_nobody_reads_is_left_alone(client: Any, join: Any) -> None:
    streams = join()
    client.xgroup_destroy(STREAM, GROUP)
    ids = fill(client)
    assert streams.trim(0) == 0
    assert left(client) == ids


def test_a_large_backlog_is_trimmed_in_rounds(client: Any, join: Any) -> None:
    streams = join()
    fill(client, 30_000)
    client.xgroup_setid(STREAM, GROUP, "$")
    assert streams.trim(0) > 29_800


def consumers(client: Any) -> set[str]:
    return {row["name"] for row in client.xinfo_consumers(STREAM, GROUP)}


def test_a_dead_consumer_is_forgotten_only_when_it_has_nothing_pending(
    client: Any, join: Any
) -> None:
    streams = join("living")
    fill(client, 30)
    join("finished").ack(join("finished").read_new(10))
    join("owing").read_new(10)
    streams.read_new(10)
    time.sleep(0.06)
    streams.read_own_pending({}, 10)
    assert streams.remove_idle_consumers(0.05) == ["finished"]
    assert consumers(client) == {"living", "owing"}
    assert client.xpending(STREAM, GROUP)["pending"] == 20
    assert len(streams.claim_idle(0, 100, 10**6)) == 20, "nothing was dropped with a consumer"


def test_a_consumer_that_was_heard_of_lately_stays(client: Any, join: Any) -> None:
    streams = join("living")
    join("other").read_new(1)
    assert streams.remove_idle_consumers(3600) == []
    assert consumers(client) >= {"other"}


def test_a_listener_never_forgets_itself(client: Any, join: Any) -> None:
    streams = join("living")
    streams.read_new(1)
    assert streams.remove_idle_consumers(0) == []
    assert consumers(client) == {"living"}
