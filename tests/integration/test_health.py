"""Health of real processes: each hung loop is seen, a stop is clean, and Redis may be away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.app import QUEUES

pytestmark = pytest.mark.full

PARTS = ("listener", "worker", "beat")


def look(service: Any, *arguments: str) -> dict[str, tuple[str, str]]:
    """Each part's state and sentence, by the console script's own way."""
    said = subprocess.run(
        [sys.executable, "-m", "cli.entry", "health", *arguments, "--json"],
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    parts = json.loads(said.stdout)["parts"]
    states = {part["state"] for part in parts}
    assert said.returncode == (2 if "down" in states else 1 if "degraded" in states else 0)
    return {part["part"]: (part["state"], part["says"]) for part in parts}


def all_are(service: Any, state: str, *arguments: str) -> bool:
    return {found for found, _ in look(service, *arguments).values()} == {state}


def heartbeats(service: Any) -> list[Path]:
    return list((service.folder / "data" / "heartbeats").glob("*.json"))


@pytest.mark.timeout(300)
def test_each_loop_that_hangs_is_seen_and_each_that_is_back(service: Any) -> None:
    service.start()
    service.wait(lambda: all_are(service, "healthy", *PARTS, "--live"))
    service.wait(lambda: all_are(service, "healthy"))  # by then a sweep has ended
    pids = [service.supervisor.pid(part) for part in PARTS]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        service.wait(lambda: all_are(service, "down", *PARTS, "--live"))
        found = look(service, *PARTS)
        assert all("hangs" in says for _, says in found.values())
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    service.wait(lambda: all_are(service, "healthy", *PARTS, "--live"))
    os.kill(service.supervisor.pid("worker"), signal.SIGKILL)
    service.wait(lambda: look(service, "worker", "--live")["worker"][0] == "down")
    service.wait(lambda: all_are(service, "healthy", *PARTS, "--live"))


@pytest.mark.timeout(300)
def test_a_server_that_hangs_hangs_no_part(service: Any) -> None:
    service.start()
    service.wait(lambda: all_are(service, "healthy"))
    pid = service.supervisor.pid("valkey")
    os.kill(pid, signal.SIGSTOP)
    try:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            found = look(service, *PARTS, "--live")
            assert {state for state, _ in found.values()} == {"healthy"}, found
            time.sleep(0.5)
        found = look(service)
        assert found["redis"][0] == found["broker"][0] == "down"
        assert found["ledger"][0] == found["artifacts"][0] == "healthy"
    finally:
        os.kill(pid, signal.SIGCONT)
    service.wait(lambda: all_are(service, "healthy"))


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_of_each_pool_lives_and_stops_cleanly(service: Any, pool: str) -> None:
    service.start("nothing but the server")
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "worker", "--pool", pool, "--concurrency", "1"],
        env={**os.environ, **service.environment},
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            service.wait(lambda: all_are(service, "healthy", "worker", "--live"))
            assert [f".{worker.pid}." in path.name for path in heartbeats(service)] == [True]
        finally:
            worker.terminate()
        worker.wait(60)
    assert heartbeats(service) == []


def test_a_purge_takes_every_priority(service: Any) -> None:
    service.start("nothing but the server")
    send = (
        "from tasks.cleanup import cleanup_old_reports as task\n"
        "for priority in (0, 3, 6, 9):\n"
        "    task.apply_async(queue='reports', priority=priority, ignore_result=True)\n"
        "task.apply_async(queue='default', ignore_result=True)\n"
    )
    subprocess.run(
        [sys.executable, "-c", send], env={**os.environ, **service.environment}, check=True
    )
    asked = service.scanherald("tasks", "purge", "reports")
    assert asked.returncode == 1
    assert "add --yes" in asked.stderr
    said = json.loads(service.scanherald("tasks", "purge", "reports", "--yes", "--json").stdout)
    assert said["queues"] == {"reports": 4}
    with service.redis() as client:
        left = {name: client.llen(name) for name in QUEUES}
    assert left == {"default": 1, "reports": 0, "notifications": 0}
