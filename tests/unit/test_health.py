"""Health: each part's question, on real parts and on servers that say what a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert, text, update
from typer.testing import CliRunner

from cli.main import app
from listener import health
from listener.health import DEPENDENCIES, EVERYTHING, Examiner
from schemas.errors import BrokerUnavailable, LedgerUnavailable, StreamUnavailable
from schemas.health import PartHealth, State, worst
from schemas.notifications import ChannelKind
from schemas.settings import load_settings
from store import tables
from store.endpoints import note_failure
from store.heartbeats import HOLDS_S
from store.runs import settle_dead
from tasks.finish import settle
from tasks.heart import Heart
from tasks.presence import SWEPT, Presence

GOOD = {
    "persistence": {"aof_enabled": 1, "aof_last_write_status": "ok"},
    "memory": {"maxmemory_policy": "noeviction", "maxmemory": 0, "used_memory": 10},
}


@pytest.fixture
def redis_says(
    join: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """What INFO answers."""
    answers = {name: dict(said) for name, said in GOOD.items()}
    server = SimpleNamespace(info=lambda section: answers[section], close=lambda: None)
    monkeypatch.setattr(health, "open_client", lambda *_, **__: server)
    return answers


@pytest.fixture
def depths(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What waits in each queue."""
    waiting = {"default": 0, "reports": 3, "notifications": 0, "newer": 0}
    monkeypatch.setattr(health, "queue_depth", waiting.__getitem__)
    return waiting


@pytest.fixture
def alive(parts: Any, join: Any, client: Any) -> Callable[..., Heart]:
    """Start the heart of a part on this machine, at the clock of the test."""

    def alive(part: str, ago_s: float = 0.0, **said: Any) -> Heart:
        heart = Heart(part, parts.settings, lambda: parts.clock().timestamp() - ago_s)
        heart.beat(**said)
        return heart

    return alive


def ask(parts: Any, part: str) -> PartHealth:
    (found,) = Examiner(parts).look([part])
    assert found.part == part
    assert found.latency_ms >= 0
    assert bool(found.do) == (found.state is not State.HEALTHY)
    return found


def elsewhere(client: Any, part: str, host: str, ago_s: float) -> None:
    client.zadd("scanherald:heartbeats", {f"{part} 7 {host}": client.time()[0] - ago_s})


def test_the_worst_state_is_the_whole_ones() -> None:
    assert worst([]) is State.HEALTHY
    assert worst([State.HEALTHY, State.DOWN, State.DEGRADED]) is State.DOWN


# Processes


def test_a_process_lives_by_its_heartbeat(parts: Any, alive: Any) -> None:
    assert ask(parts, "listener").state is State.DOWN
    alive("listener")
    assert ask(parts, "listener").state is State.HEALTHY
    alive("listener", waits_for="workers")
    waits = ask(parts, "listener")
    assert (waits.state, waits.do) == (State.DEGRADED, "see: scanherald health worker")
    alive("listener", ago_s=HOLDS_S + 5)
    assert "hangs" in ask(parts, "listener").says


def test_processes_of_other_machines_are_seen_in_redis(parts: Any, alive: Any, client: Any) -> None:
    elsewhere(client, "beat", "two.example", 5)
    found = ask(parts, "beat")
    assert (found.state, found.says) == (State.HEALTHY, "1 of 1 on other machines are alive")
    elsewhere(client, "beat", "three.example", 90)
    found = ask(parts, "beat")
    assert found.state is State.DEGRADED
    assert "three.example (process 7) was last seen 9" in found.says
    alive("beat")
    assert ask(parts, "beat").says.startswith("process ")
    client.zrem("scanherald:heartbeats", "beat 7 two.example")
    assert ask(parts, "beat").state is State.DEGRADED


def test_all_silent_elsewhere_and_nobody_here_is_down(parts: Any, join: Any, client: Any) -> None:
    elsewhere(client, "listener", "two.example", 200)
    assert ask(parts, "listener").state is State.DOWN


def test_without_redis_this_machine_is_known_still(parts: Any, alive: Any, server: Any) -> None:
    alive("worker")
    server.connected = False
    assert ask(parts, "worker").state is State.HEALTHY
    assert ask(parts, "beat").state is State.DOWN


def test_workers_prove_themselves_by_the_last_sweep(parts: Any, alive: Any, client: Any) -> None:
    assert ask(parts, "worker").says == "no heartbeat on this machine"
    alive("worker")
    found = ask(parts, "worker")
    assert (found.state, "no sweep has ended yet" in found.says) == (State.DEGRADED, True)
    presence = Presence(parts.settings)
    presence.note(SWEPT, "-", 0)
    found = ask(parts, "worker")
    assert (found.state, "the last sweep ended" in found.says) == (State.HEALTHY, True)
    client.zadd("scanherald:heartbeats", {f"{SWEPT} 0 -": client.time()[0] - 500})
    found = ask(parts, "worker")
    assert (found.state, "no sweep has ended for 50" in found.says) == (State.DEGRADED, True)
    presence.close()


# Redis and the broker


def test_redis_tells_who_is_behind(parts: Any, redis_says: Any, client: Any, join: Any) -> None:
    now_ms = int(parts.clock().timestamp() * 1000)
    client.xadd("scans:events", {"data": "{}"}, id=f"{now_ms - 60_000}-0")
    found = ask(parts, "redis")
    assert (found.state, found.says) == (
        State.HEALTHY,
        "1 entries unread, 0 pending, the oldest 60 s old",
    )
    parts.clock.forward(61)
    found = ask(parts, "redis")
    assert (found.state, "not read in time" in found.says) == (State.DEGRADED, True)


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("persistence", "aof_enabled", 0, "append-only file is off"),
        ("persistence", "aof_last_write_status", "err", "cannot write to its disk"),
        ("memory", "maxmemory_policy", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
        ("memory", "maxmemory", 11, "memory is nearly full"),
    ],
)
def test_a_server_that_may_lose_or_refuse_entries_is_degraded(
    parts: Any, redis_says: Any, section: str, field: str, value: Any, words: str
) -> None:
    assert ask(parts, "redis").state is State.HEALTHY
    redis_says[section][field] = value
    found = ask(parts, "redis")
    assert (found.state, words in found.says) == (State.DEGRADED, True)


def test_a_server_that_is_away_is_down(make_parts: Any) -> None:
    found = ask(make_parts(redis_url="redis://127.0.0.1:1/0"), "redis")
    assert (found.state, found.says.startswith("redis: ConnectionError")) == (State.DOWN, True)


def test_a_full_queue_degrades_the_broker(parts: Any, depths: dict[str, int]) -> None:
    assert ask(parts, "broker").says == "waiting: 0 in default, 3 in reports, 0 in notifications"
    depths["reports"] = 1000
    found = ask(parts, "broker")
    assert (found.state, found.do) == (
        State.DEGRADED,
        "start more workers: scanherald worker --queue reports",
    )


# The ledger, the artifacts, the channels


def test_a_ledger_that_nobody_made_is_down_and_stays_unmade(make_parts: Any) -> None:
    parts = make_parts()
    (parts.settings.data_dir / "ledger.sqlite3").unlink()
    found = ask(parts, "ledger")
    assert (found.state, "there is no ledger yet" in found.says) == (State.DOWN, True)
    assert ask(parts, "channels").state is State.DOWN
    assert not (parts.settings.data_dir / "ledger.sqlite3").exists()
    (parts.settings.data_dir / "ledger.sqlite3").touch()
    assert "the database is empty" in ask(parts, "ledger").says


def test_a_ledger_of_another_release_is_degraded(parts: Any) -> None:
    assert ask(parts, "ledger").says == "no run is unfinished"
    with parts.ledger.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    found = ask(parts, "ledger")
    assert (found.state, found.says.startswith("its schema is 0001")) == (State.DEGRADED, True)
    assert ask(parts, "channels").says == "not asked: the ledger's schema is 0001"


def test_work_that_does_not_go_on_degrades_the_ledger(
    parts: Any, record: Any, make_scan: Any, subscribe: Any, clock: Any
) -> None:
    subscribe(parts)
    event = record(parts, b'{"error":"DNS"}', type="scan.failed")
    assert ask(parts, "ledger").says == "oldest unfinished run: 0 s"
    settle(parts, event.run_id, 1)
    clock.forward(120)
    assert ask(parts, "ledger").state is State.HEALTHY
    clock.forward(70)
    late = ask(parts, "ledger")
    assert (late.state, late.says) == (
        State.DEGRADED,
        "no run is unfinished; 1 deliveries are overdue",
    )
    ticket = record(parts, make_scan())
    clock.forward(901)
    assert "more than the 900 s of one attempt" in ask(parts, "ledger").says
    with parts.ledger.write() as connection:
        settle_dead(connection, ticket.run_id, "why", clock())
    assert "1 runs died in the last hour" in ask(parts, "ledger").says


def test_the_probe_leaves_nothing_behind(parts: Any) -> None:
    parts.artifacts.folder.mkdir()
    found = ask(parts, "artifacts")
    assert (found.state, found.says) == (State.HEALTHY, "a probe was put, read and deleted")
    assert [path for path in parts.artifacts.folder.rglob("*") if path.is_file()] == []


def test_a_folder_that_is_not_there_stays_so(make_parts: Any, tmp_path: Any) -> None:
    folder = tmp_path / "new" / "artifacts"
    parts = make_parts(artifacts_url=f"file://{folder}")
    found = ask(parts, "artifacts")
    assert (found.state, found.says) == (State.HEALTHY, f"the first one makes the folder {folder}")
    assert not folder.parent.exists()


def test_a_folder_that_cannot_be_made_is_down(
    make_parts: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health.os, "access", lambda *_: False)  # root may write anywhere
    found = ask(make_parts(artifacts_url=f"file://{tmp_path / 'a'}"), "artifacts")
    assert (found.state, "cannot be made" in found.says) == (State.DOWN, True)


def test_a_store_that_loses_what_was_put_is_down(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.artifacts.folder.mkdir()
    monkeypatch.setattr(parts.artifacts, "get", lambda _: b"something else")
    assert ask(parts, "artifacts").state is State.DOWN


def test_a_disk_that_is_nearly_full_degrades_what_lies_on_it(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 1024**2))
    for part in ("ledger", "artifacts"):
        found = ask(parts, part)
        assert (found.state, "only 100 MiB are free" in found.says) == (State.DEGRADED, True)


def test_channels_tell_of_failures_disabled_addresses_and_silent_destinations(
    parts: Any, record: Any, subscribe: Any, clock: Any
) -> None:
    subscribe(parts)
    assert ask(parts, "channels").says.startswith("1 subscribers, e-mail off")
    settle(parts, record(parts, b"{}", type="scan.failed").run_id, 1)
    with parts.ledger.write() as connection:
        connection.execute(
            update(tables.deliveries).values(state="failed", settled_at=clock(), reason="503")
        )
        connection.execute(
            insert(tables.pacing).values(
                pace_key="a.example:443",
                next_at=0.0,
                failures=4,
                closed_until=clock() + timedelta(minutes=1),
            )
        )
        note_failure(
            connection,
            "anna",
            ChannelKind.WEBHOOK,
            now=clock(),
            max_failing=timedelta(days=5),
            max_gap=timedelta(days=1),
            gone=True,
        )
    found = ask(parts, "channels")
    assert found.state is State.DEGRADED
    for words in ("1 deliveries failed", "1 addresses are disabled", "1 destinations do not"):
        assert words in found.says
    clock.forward(3601)
    assert "failed" not in ask(parts, "channels").says


# One beside the other


def test_one_that_hangs_hides_no_other(
    make_parts: Any, depths: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_parts(health_timeout_s=0.3)
    asked, go_on = [], threading.Event()

    def hang(_: Any) -> PartHealth:
        asked.append(1)
        go_on.wait(30)
        return PartHealth("redis", State.HEALTHY, "back")

    monkeypatch.setitem(health.CHECKS, "redis", hang)
    monkeypatch.setitem(
        health.CHECKS, "ledger", lambda _: PartHealth("ledger", State.HEALTHY, "fine")
    )
    examiner = Examiner(parts)
    redis, ledger = examiner.look(["redis", "ledger"])
    assert (redis.state, redis.says) == (State.DOWN, "does not answer within 0 s")
    assert ledger.state is State.HEALTHY
    examiner.look(["redis"])
    assert asked == [1], "asked again while it hangs"
    go_on.set()
    parts = make_parts()
    (back,) = examiner.look(["redis"])
    assert back.says == "back"
    examiner.look(["redis"])
    assert asked == [1, 1]


@pytest.mark.parametrize(
    "error",
    [StreamUnavailable("away"), BrokerUnavailable("away"), LedgerUnavailable("away")],
)
def test_a_fault_is_the_answer(parts: Any, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    def fail(_: Any) -> PartHealth:
        raise error

    monkeypatch.setitem(health.CHECKS, "ledger", fail)
    found = ask(parts, "ledger")
    assert (found.state, found.says) == (State.DOWN, "away")


def test_a_bug_in_one_check_hides_no_other(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(_: Any) -> PartHealth:
        raise KeyError("oops")

    monkeypatch.setitem(health.CHECKS, "redis", bug)
    redis, artifacts = Examiner(parts).look(["redis", "artifacts"])
    assert redis.says == "its check failed: KeyError: 'oops'"
    assert artifacts.state is State.HEALTHY


# The command


@pytest.fixture
def states(parts: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, State]:
    """What each check says."""
    said: dict[str, State] = dict.fromkeys(EVERYTHING, State.HEALTHY)
    for name in EVERYTHING:
        monkeypatch.setitem(
            health.CHECKS,
            name,
            lambda _, name=name: PartHealth(
                name, said[name], "says [bold]so[/bold]", "do" if said[name] else ""
            ),
        )
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # of the whole process
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    return said


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["health", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout


def told(*arguments: str) -> tuple[int, list[str]]:
    status, said = command(*arguments, "--json")
    return status, [part["part"] for part in json.loads(said)["parts"]]


def test_the_exit_status_is_the_worst_parts(states: dict[str, State]) -> None:
    assert told() == (0, list(EVERYTHING))
    states["beat"] = State.DEGRADED
    assert told()[0] == 1
    states["redis"] = State.DOWN
    assert told()[0] == 2
    assert told("beat", "ledger") == (1, ["beat", "ledger"])
    status, said = command("redis")
    assert status == 2
    assert "redis  down" in said
    assert "says [bold]so[/bold]" in said


def test_ready_asks_what_a_part_depends_on(states: dict[str, State]) -> None:
    assert told("--ready") == (0, list(DEPENDENCIES))
    assert told("worker", "--ready") == (0, ["worker", "broker", "ledger", "artifacts"])
    assert told("listener", "beat", "--ready")[1] == [
        *("listener", "beat", "redis", "broker", "ledger")
    ]


def test_watching_looks_until_it_is_stopped(
    states: dict[str, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        states["beat"] = State.DOWN
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("cli.health.time.sleep", sleep)
    status, said = command("beat", "--watch", "--every", "9", "--json")
    assert (status, looks) == (2, [9.0, 9.0])
    assert [json.loads(line)["state"] for line in said.splitlines()] == ["healthy", "down"]


@pytest.mark.parametrize(
    "arguments", [("oven",), ("redis", "--live"), ("--live", "--watch"), ("--live", "--ready")]
)
def test_what_cannot_be_asked_is_refused(states: dict[str, State], arguments: Any) -> None:
    result = CliRunner().invoke(app, ["health", *arguments])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "InvalidSettings"


def test_a_url_that_cannot_be_read_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    # the password's @ is not encoded: read, an error would quote the rest of it
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:Sec@ret:Hunter2@h/db")
    assert health.sqlite_file(load_settings()) is None
