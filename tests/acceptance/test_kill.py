"""kill -9, and what is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.embedded import free_port


def small_scans(count: int) -> list[dict[str, bytes]]:
    return [
        {
            "data": orjson.dumps(
                {
                    "scan_id": str(uuid.UUID(int=number + 1)),
                    "domain": f"site-{number}.example",
                    "page_count": 1,
                    "cookies": [{"name": "a", "set_after_accept": False}],
                }
            )
        }
        for number in range(count)
    ]


def check_nothing_lost(service: Any, count: int) -> None:
    runs = service.runs()
    assert len(runs) == count
    assert {run["state"] for run in runs} == {"done"}, [run["last_error"] for run in runs]
    made = Counter(row["status"] for row in service.reports())
    assert made == {"ready": 4 * count}
    deliveries = service.deliveries()
    assert {row["state"] for row in deliveries} == {"sent"}
    arrived = {request.headers["webhook-id"] for request in service.sink.requests}
    assert arrived == {row["delivery_id"] for row in deliveries}, "an effect per delivery"


def test_a_listener_killed_again_and_again_loses_nothing(service: Any) -> None:
    count = 120
    service.environment["SCANHERALD_BATCH_ENTRIES"] = "5"
    service.start()
    service.subscribe()
    events = small_scans(count)
    for start in range(0, count, 30):
        service.publish(*events[start : start + 30])
        pid = service.supervisor.pid("listener")
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        service.wait(lambda: service.supervisor.pid("listener") is not None)
    service.wait(lambda: service.settled(count), 100)
    check_nothing_lost(service, count)


def test_workers_killed_in_mid_run_lose_nothing(service: Any) -> None:
    count = 40
    seed = int(os.environ.get("SCANHERALD_TEST_SEED", "20"))
    chance = random.Random(seed)
    service.environment |= {
        "SCANHERALD_RUN_DEADLINE_S": "4",
        "SCANHERALD_RETRY_MAX_S": "1",
        "SCANHERALD_DELIVERY_LEASE_S": "5",
        "SCANHERALD_VISIBILITY_TIMEOUT_S": "10",
        "SCANHERALD_TASK_TIME_LIMIT_S": "5",
        "SCANHERALD_TASK_SOFT_TIME_LIMIT_S": "4",
        "SCANHERALD_RUN_MAX_ATTEMPTS": "20",
        "SCANHERALD_RENDER_MAX_TRIES": "20",
    }
    service.start()
    service.subscribe()
    service.publish(*small_scans(count))
    kills = 0
    while kills < 3:
        service.wait(lambda so_far=kills: len(service.reports()) > so_far * 10)
        pid = service.supervisor.pid("worker")
        if pid is not None:
            os.killpg(pid, signal.SIGKILL)
            kills += 1
        pause = time.monotonic() + chance.uniform(0.5, 2.0)
        service.wait(lambda until=pause: time.monotonic() > until)
    service.wait(lambda: service.settled(count), 110)
    check_nothing_lost(service, count)


def test_a_stopping_listener_finishes_its_batch_and_acknowledges_it(service: Any) -> None:
    service.start()
    service.publish(*small_scans(200))
    service.wait(lambda: len(service.runs()) > 0)
    pid = service.supervisor.pid("listener")
    os.kill(pid, signal.SIGTERM)
    service.wait(lambda: service.supervisor.pid("listener") != pid)

    stopped = [line["event"] for line in service.log_lines("listener")]
    assert "listener_stopped" in stopped
    service.wait(lambda: service.settled(200), 100)
    client = service.redis()
    assert client.xpending("scans:events", "scanherald")["pending"] == 0
    client.close()


@pytest.fixture
def up_environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "SCANHERALD_DATA_DIR": str(tmp_path / "data"),
        "SCANHERALD_LOG_FORMAT": "json",
        "SCANHERALD_SWEEP_INTERVAL_S": "1",
    }


def test_up_keeps_its_data_through_kill_9_and_allows_only_one(
    tmp_path: Path, up_environment: dict[str, str], scans: list[bytes]
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = [sys.executable, "-m", "cli.main", "up", "--port", str(port)]
    environment = {**up_environment, "REDIS_URL": url}

    def scanherald(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def runs_done() -> int:
        listed = json.loads(scanherald("runs", "--state", "done", "--json").stdout or "[]")
        return len(listed)

    def start() -> subprocess.Popen[bytes]:
        log = (tmp_path / "up.log").open("ab")
        with log:
            return subprocess.Popen(command, env=up_environment, stdout=log, stderr=log)

    def wait(condition: Any) -> None:
        give_up = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up, (tmp_path / "up.log").read_text()[-4000:]
            time.sleep(0.3)

    files = []
    for number, data in enumerate(scans[:2]):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_bytes(data)

    first = start()
    try:
        wait(lambda: scanherald("publish", str(files[0])).returncode == 0)
        wait(lambda: runs_done() == 1)
        second = subprocess.run(
            command, env=up_environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 1
        assert "another `scanherald up` runs" in second.stderr
    finally:
        first.kill()
        first.wait()

    again = start()
    try:
        wait(lambda: scanherald("publish", str(files[1])).returncode == 0)
        wait(lambda: runs_done() == 2)
    finally:
        again.terminate()
        assert again.wait(60) == 0
