"""Replays with real processes: killed and resumed, behind live scans, from the real streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.replay import measure_latency, measure_memory, scan
from schemas.crash_points import fired, lay_token
from schemas.reports import DEFAULT_FORMATS

PRESSES = len(DEFAULT_FORMATS)


def event(name: object, cookies: int = 3, **fields: str) -> dict[str, Any]:
    return {"data": scan(name, cookies), **fields}


def replay(service: Any, *arguments: str) -> dict[str, Any]:
    said = service.scanherald("replay", "--json", *arguments)
    assert said.returncode == 0, said.stderr + service.last_words()
    found: dict[str, Any] = json.loads(said.stdout)
    return found


@pytest.fixture
def driven(service: Any) -> Iterator[Any]:
    """Begins a replay as a process of its own; whatever is left of it is ended."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "cli.main", "replay", *arguments],
                env={**os.environ, **service.environment, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def files(folder: Path, count: int) -> Path:
    path = folder / "scans.jsonl"
    path.write_bytes(b"".join(scan(number, 3) + b"\n" for number in range(count)))
    return path


@pytest.mark.full
@pytest.mark.timeout(300)
def test_killed_at_every_window_and_resumed_each_artifact_and_delivery_is_made_once(
    service: Any, driven: Any, tmp_path: Path
) -> None:
    crash = tmp_path / "crash"
    service.subscribe()
    service.start()
    path = files(tmp_path, 40)
    for skip, point in enumerate(("replay.committing", "replay.recorded", "replay.dispatched")):
        lay_token(crash, point, skip=skip + 1)
    begun = driven(
        *(str(path), "--only", "reports,notify", "--yes", "--in-flight", "4"),
        SCANHERALD_CRASH_DIR=str(crash),
    )
    assert begun.wait(120) == -signal.SIGKILL, begun.communicate()[1]
    (listed,) = json.loads(service.scanherald("replays", "--json").stdout)
    replay_id = listed["replay_id"]
    assert listed["state"] == "running"
    for _ in range(2):
        killed = driven("--resume", replay_id, SCANHERALD_CRASH_DIR=str(crash))
        assert killed.wait(120) == -signal.SIGKILL, killed.communicate()[1]
    random = driven("--resume", replay_id)
    time.sleep(4)
    random.kill()
    random.wait(10)

    found = replay(service, "--resume", replay_id)

    assert sum(fired(crash, f"replay.{name}") for name in ("committing", "recorded", "dispatched"))
    assert (found["state"], found["selected"], found["started"], found["new"]) == (
        "done",
        40,
        40,
        40,
    )
    assert found["runs"] == {"done": 40, "dead": 0, "cancelled": 0, "unfinished": 0}
    assert found["reports"] == {"ready": 40 * PRESSES}
    service.wait(lambda: all(row["settled_at"] for row in service.deliveries()))
    sent = Counter(request.headers["webhook-id"] for request in service.sink.requests)
    assert set(sent.values()) == {1}
    assert len(sent) == len(service.deliveries())
    keys = Counter(row["event_key"] for row in service.deliveries())
    assert set(keys.values()) == {1}
    assert sum(key.startswith("scan.completed:") for key in keys) == 40
    audit = service.scanherald("audit")
    assert audit.returncode == 0, audit.stdout


@pytest.mark.full
@pytest.mark.timeout(180)
def test_sigterm_stops_it_as_ctrl_c_does(service: Any, driven: Any, tmp_path: Path) -> None:
    service.start("nothing but the server")
    begun = driven(str(files(tmp_path, 30)), "--in-flight", "4")
    service.wait(lambda: len(service.runs()) == 4)
    begun.send_signal(signal.SIGTERM)
    assert begun.wait(30) == 130
    (listed,) = json.loads(service.scanherald("replays", "--json").stdout)
    assert listed["state"] == "interrupted"
    assert f"--resume {listed['replay_id']}" in begun.communicate()[1]


def test_messages_of_a_replay_lie_behind_live_ones_and_are_counted_and_purged_with_them(
    service: Any, driven: Any, tmp_path: Path
) -> None:
    service.environment["SCANHERALD_TOGETHER_BYTES"] = "0"  # several messages a run
    service.start("listener")
    begun = driven(str(files(tmp_path, 10)), "--in-flight", "5")
    live = service.publish(event("live"))
    service.wait(lambda: len(service.runs()) == 6)
    with service.redis() as client:
        service.wait(
            lambda: (
                (client.llen("reports"), client.llen("reports\x06\x169")) == (PRESSES, 5 * PRESSES)
            )
        )
    assert len(live) == 1
    begun.kill()
    begun.wait(10)
    program = (
        "from schemas.settings import load_settings; from tasks import wiring; "
        "wiring.use(load_settings()); from tasks.queues import queue_depth; "
        "from tasks.monitoring import get_celery_monitor; "
        "print(queue_depth('reports')); "
        "print(get_celery_monitor().purge_queue('reports')['purged']); "
        "print(queue_depth('reports'))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert list(map(int, said.stdout.split())) == [6 * PRESSES, 6 * PRESSES, 0]


@pytest.mark.full
@pytest.mark.timeout(240)
def test_the_streams_are_replayed_without_taking_anything_from_the_listener(service: Any) -> None:
    service.subscribe()
    service.start()
    service.publish(event(1), event(2, userid="x"), {"data": "{broken"})
    service.wait(lambda: service.settled(2) and len(service.dead_letters()) == 1)
    told = len(service.deliveries())
    os.kill(service.supervisor.pid("listener"), signal.SIGSTOP)
    ids = [entry.decode() for entry in service.publish(event(3))]

    found = replay(service, "--from-stream", "--force", "--formats", "csv")

    assert (found["selected"], found["started"]) == (4, 2)
    assert found["skipped"] == {
        "a dead letter; see scanherald dead-letters replay": 1,
        "not taken in yet: it is the listener's": 1,
    }
    assert len(service.deliveries()) == told
    assert replay(service, "--from-stream", "--from", ids[0])["selected"] == 1
    os.kill(service.supervisor.pid("listener"), signal.SIGCONT)
    service.wait(lambda: service.settled(5))
    assert len(service.deliveries()) > told, "the listener took it in as a live scan"
    assert replay(service, "--from-stream", "--from", ids[0], "--force")["started"] == 1
    assert replay(service, "--from-stream", "--to", "1-0")["selected"] == 0
    audit = service.scanherald("audit")
    assert audit.returncode == 0, audit.stdout


@pytest.mark.full
@pytest.mark.timeout(300)
def test_entries_that_the_ledger_lost_are_recorded_by_a_replay(service: Any) -> None:
    service.start("worker")
    with service.redis() as client:
        client.xgroup_create("scans:events", "scanherald", id="0", mkstream=True)
        lost = service.publish(*(event(number, 2000) for number in range(6)))
        client.xreadgroup("scanherald", "somebody", {"scans:events": ">"})
        client.xack("scans:events", "scanherald", *lost)
    assert "lost entry" in service.scanherald("audit").stdout
    found = replay(service, "--from-stream", "--formats", "json")
    assert (found["started"], found["new"]) == (6, 6)
    assert found["checkpoint"] == {"stream": "scans:events", "entry": lost[-1].decode()}
    audit = service.scanherald("audit")
    assert audit.returncode == 0, audit.stdout


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_live_scan_waits_for_no_more_than_the_work_in_flight() -> None:
    found = measure_latency(300, 6, 100)
    assert found.started < 300
    in_hand = 2  # tasks that two worker processes have begun
    bound = sorted(found.alone)[-1] * (1 + in_hand) + 3000
    assert sorted(found.beside)[len(found.beside) // 2] < bound, found


@pytest.mark.full
@pytest.mark.timeout(300)
def test_memory_stays_flat() -> None:
    small, large = measure_memory(200), measure_memory(2000)
    assert large.last_mb - small.last_mb < 30, (small, large)


@pytest.mark.full
@pytest.mark.timeout(240)
def test_a_replay_does_not_stop_intake(service: Any, driven: Any, tmp_path: Path) -> None:
    service.environment |= {
        "SCANHERALD_REPORTS_HIGH_WATER": "50",
        "SCANHERALD_SWEEP_INTERVAL_S": "600",
    }
    service.start("listener")
    driven(str(files(tmp_path, 20)), "--in-flight", "5")
    service.wait(lambda: len(service.runs()) == 5)
    service.publish(*(event(f"live {uuid.uuid4()}") for _ in range(3)))
    service.wait(lambda: len([row for row in service.runs() if row["kind"] == "live"]) == 3)
    assert not [line for line in service.log_lines("listener") if "paused" in str(line)]
