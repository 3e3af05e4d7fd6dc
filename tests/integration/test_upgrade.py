"""Rolling upgrades: the previous release's messages and rows meet this release's workers."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Service

RECORDED = Path(__file__).parents[1] / "data" / "messages-0.1"
KEY = "rGsPkSpwsHWLqk0CNSJ6ytrKcBiUz5iDpq0bx8Dq7hU="
"""What the recorded addresses were sealed with; it protects nothing else."""

ASKED_FOR = ["one-report", "two-reports", "export", "one-message", "one-user", "two-users"]


def restore_recorded(service: Service) -> dict[str, Any]:
    """The recorded ledger, artifacts and keys of Redis, but what beat had asked for."""
    service.environment |= {"SCANHERALD_ENCRYPTION_KEYS": KEY, "SCANHERALD_FORMATS": "json,csv"}
    data = service.folder / "data"
    shutil.rmtree(data)
    data.mkdir()
    with contextlib.closing(sqlite3.connect(data / "ledger.sqlite3")) as ledger:
        ledger.executescript((RECORDED / "ledger.sql").read_text())
    shutil.copytree(RECORDED / "artifacts", data / "artifacts")
    service.start("none but the server")
    kept: dict[str, Any] = json.loads((RECORDED / "redis.json").read_text())
    of_beat = {"default": kept.pop("default")}
    load(service, kept)
    return of_beat


def load(service: Service, kept: dict[str, Any]) -> None:
    with contextlib.closing(service.redis()) as client:
        for key, item in kept.items():
            value = item["value"]
            match item["type"]:
                case "string":
                    client.set(key, value)
                case "list":
                    client.rpush(key, *value)
                case "set":
                    client.sadd(key, *value)
                case "zset":
                    client.zadd(key, dict(value))
                case kind:
                    pytest.fail(f"{key} is a {kind}")


def results(service: Service) -> dict[str, dict[str, Any]]:
    with contextlib.closing(service.redis()) as client:
        found = {key: client.get(key) for key in client.keys("celery-task-meta-*")}
    return {
        key.decode().removeprefix("celery-task-meta-"): json.loads(value)
        for key, value in found.items()
        if value
    }


@pytest.mark.full
def test_the_previous_releases_messages_end_as_they_would_have_there(service: Service) -> None:
    of_beat = restore_recorded(service)
    waiting = {item["headers"]["id"] for item in map(json.loads, of_beat["default"]["value"])}
    service.start_part("worker")
    service.wait(
        lambda: service.settled(5) and results(service).keys() >= set(ASKED_FOR),
    )

    runs = service.runs()
    assert Counter(run["state"] for run in runs) == {"done": 4, "dead": 1}
    assert {run["attempt"] for run in runs} == {1}, "the old messages did it, not a sweep"
    reports = service.reports()
    assert Counter(row["status"] for row in reports) == {"ready": 4}
    for row in reports:
        assert (service.folder / "data" / "artifacts" / row["artifact_key"]).exists()
    by_id = results(service)
    assert {by_id[name]["status"] for name in ASKED_FOR} == {"SUCCESS"}
    assert by_id["two-reports"]["result"]["total_generated"] == 2
    assert by_id["one-message"]["result"]["success"]
    told = Counter(row["event_key"].split(":")[0] for row in service.deliveries())
    assert {row["state"] for row in service.deliveries()} == {"sent"}
    assert told["scan.completed"] == 2, told
    assert told["scan.failed"] == told["schedule.failed"] == 1
    assert told["schedule.updated"] == 2
    assert len(service.mails.messages) == sum(told.values())

    load(service, of_beat)
    service.wait(lambda: results(service).keys() >= waiting)
    assert {results(service)[name]["status"] for name in waiting} == {"SUCCESS"}
    audited = service.scanherald("audit")
    assert audited.returncode == 0, audited.stdout
