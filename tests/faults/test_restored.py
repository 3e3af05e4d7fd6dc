"""Backup and restore of a real one-machine installation, with the stream still there or gone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.embedded import free_port, wait_for_redis
from tests.conftest import Service

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@contextlib.contextmanager
def up(service: Service) -> Iterator[None]:
    """``scanherald up`` on the service's folder and port."""
    with (service.folder / "up.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--port", str(service.port)],
            env={**os.environ, **service.environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def told(service: Service) -> Counter[str]:
    """How often each event was told to the webhook, by its key."""
    bodies = [json.loads(request.body) for request in service.sink.requests]
    return Counter(body["data"]["event_key"] for body in bodies)


def test_a_restored_installation_is_audited_and_made_whole_again(
    service: Service, scans: list[bytes], tmp_path: Path
) -> None:
    """What came after the backup is still in the stream; then an artifact is lost."""
    data, backup = service.folder / "data", tmp_path / "backup"
    service.environment["SCANHERALD_FORMATS"] = "json,csv"
    service.port = free_port()
    service.environment["REDIS_URL"] = f"redis://127.0.0.1:{service.port}/0"
    service.subscribe()
    with up(service):
        wait_for_redis(service.environment["REDIS_URL"])
        service.publish({"data": scans[0]}, {"data": scans[1]})
        service.wait(lambda: service.settled(2))
        said = service.scanherald("backup", str(backup), "--json")
        assert said.returncode == 0, said.stderr
        manifest = json.loads(said.stdout)
        assert (manifest["artifacts"], manifest["missing"]) == (4, 0)
        service.publish({"data": scans[2]})
        service.wait(lambda: service.settled(3))
    early = {key for key, times in told(service).items() if times == 1}
    for path in data.glob("ledger.sqlite3*"):
        path.unlink()
    shutil.rmtree(data / "artifacts")
    said = service.scanherald("restore", str(backup))
    assert said.returncode == 0, said.stdout + said.stderr
    of_backup = {row["event_key"] for row in service.deliveries()}
    assert of_backup <= early

    with up(service):
        wait_for_redis(service.environment["REDIS_URL"])
        gaps = service.scanherald("audit")
        assert gaps.returncode == 1
        assert gaps.stdout.count("lost entry") == 1
        assert "scanherald replay --from-stream" in gaps.stdout
        since = manifest["taken_at"][:19]
        wanted = ("--from-stream", "--from", since, "--only", "reports,notify")
        replay = service.scanherald("replay", *wanted, "--yes")
        assert replay.returncode == 0, replay.stderr
        service.wait(lambda: service.settled(3) and len(service.reports()) == 6)
        again = {key for key, times in told(service).items() if times > 1}
        assert again.isdisjoint(of_backup), "what the ledger knows wakes nobody again"
        victim = next(row["artifact_key"] for row in service.reports())
        kept = (data / "artifacts" / victim).rename(tmp_path / "kept")
        gaps = service.scanherald("audit")
        assert gaps.returncode == 1
        assert victim.split("/")[0] in gaps.stdout, "it names the report"
        kept.rename(data / "artifacts" / victim)
        assert service.scanherald("audit").returncode == 0


def test_a_run_in_flight_goes_on_with_another_redis(
    service: Service, scans: list[bytes], tmp_path: Path
) -> None:
    """The queues are gone with the old server: the sweep's next attempt does the work."""
    service.environment |= {"SCANHERALD_FORMATS": "json", "SCANHERALD_RUN_DEADLINE_S": "5"}
    service.start("listener")
    service.publish({"data": scans[0]})
    service.wait(lambda: [run["state"] for run in service.runs()] == ["dispatched"])
    backup = tmp_path / "backup"
    assert service.scanherald("backup", str(backup)).returncode == 0
    service.supervisor.stop()
    shutil.rmtree(service.folder / "data")
    shutil.rmtree(service.folder / "valkey")
    assert service.scanherald("restore", str(backup)).returncode == 0
    service.start()
    service.wait(lambda: service.settled(1))
    (run,) = service.runs()
    assert (run["state"], run["attempt"] > 1) == ("done", True)
    assert service.scanherald("audit").returncode == 0
