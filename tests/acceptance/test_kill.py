"""kill -9, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
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


@pytest.mark.full
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
