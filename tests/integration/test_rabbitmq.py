"""The road with RabbitMQ as Celery's broker, and Redis for the stream and the results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from benchmarks.replay import scan
from schemas.errors import BrokerUnavailable
from schemas.settings import load_settings
from tasks.engines import engine_settings
from tasks.publishing import broker_faults
from tests.authority import Authority
from tests.conftest import CALLS_A_TASK

pytestmark = pytest.mark.full

FORMATS = 4


@pytest.mark.timeout(400)
def test_the_eleven_scans_take_the_whole_road_over_rabbitmq(
    service: Any, rabbitmq: Any, scans: list[bytes]
) -> None:
    service.start()
    service.subscribe(mail=True)
    service.publish(*({"data": data} for data in scans))
    service.wait(lambda: service.settled(len(scans)), 120)

    reports = service.reports()
    assert len(reports) == FORMATS * len(scans)
    for row in reports:
        assert hashlib.sha256(Path(row["uri"]).read_bytes()).hexdigest() == row["sha256"]
    sent = Counter(request.headers["webhook-id"] for request in service.sink.requests)
    assert set(sent.values()) == {1}
    planned = Counter(row["channel"] for row in service.deliveries())
    assert (len(sent), len(service.mails.messages)) == (planned["webhook"], planned["email"])
    assert service.ask(CALLS_A_TASK, json.loads(scans[0])["scan_id"]) == "1"
    with service.redis() as client:  # nothing of the broker's is on Redis
        assert client.keys("_kombu*") == client.keys("unacked*") == []
    for command in (("health",), ("audit",)):
        said = service.scanherald(*command)
        assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.timeout(400)
def test_depths_priorities_and_back_pressure_mean_the_same_on_rabbitmq(
    service: Any, rabbitmq: Any, tmp_path: Path
) -> None:
    service.environment |= {
        "SCANHERALD_REPORTS_HIGH_WATER": "30",
        "SCANHERALD_REPORTS_LOW_WATER": "0",
        "SCANHERALD_FORMATS": "json,csv",
        "SCANHERALD_TOGETHER_BYTES": "0",  # a message for each format
    }
    service.start("listener")
    path = tmp_path / "scans.jsonl"
    path.write_bytes(b"".join(scan(number, 3) + b"\n" for number in range(3)))
    said = (tmp_path / "logs" / "replay.log").open("wb")
    replayed = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "replay", str(path), "--in-flight", "3"],
        env={**os.environ, **service.environment},
        stdout=said,
        stderr=subprocess.STDOUT,
    )
    try:
        service.wait(lambda: len(service.runs()) == 3)
        service.publish(*({"data": scan(f"live {number}", 3)} for number in range(12)))
        service.wait(lambda: len(service.runs()) == 15)
        service.wait(lambda: depth(rabbitmq) == 30)
        # At the high-water mark the listener leaves the next ones in the stream.
        service.publish(*({"data": scan(f"late {number}", 3)} for number in range(2)))
        service.wait(
            lambda: "intake_paused" in {line["event"] for line in service.log_lines("listener")}
        )
        live = {row["run_id"] for row in service.runs() if row["kind"] == "live"}
        first = peek(rabbitmq, 30)
        assert {run in live for run in first[:24]} == {True}
        assert {run in live for run in first[24:]} == {False}

        service.wait(lambda: depth(rabbitmq) == 30)  # what was looked at is back
        purged = service.scanherald("tasks", "purge", "reports", "--yes", "--json")
        assert json.loads(purged.stdout)["purged"] == 30
        service.wait(lambda: len(service.runs()) == 17)
        cancelled = service.scanherald(
            "runs", "cancel", "--domain", "*", "--reason", "a test", "--yes", "--json"
        )
        assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr
        found = json.loads(cancelled.stdout)
        assert (len(found["cancelled"]), found["tasks_not_revoked"]) == (17, None)
    finally:
        replayed.kill()
        replayed.wait(10)
        said.close()


def test_rabbitmq_is_known_by_its_certificate_and_we_by_our_password(
    rabbitmq: Any, tmp_path: Path
) -> None:
    connect(rabbitmq.tls_url())
    stranger = Authority(tmp_path).root_file()
    for url, says in (
        (rabbitmq.tls_url(root=stranger), "give the authority that signed"),
        (rabbitmq.tls_url("127.0.0.2"), "not valid for '127.0.0.2'"),
        (rabbitmq.url.replace("guest:guest", "guest:no"), "user, password or virtual host"),
    ):
        with pytest.raises(BrokerUnavailable, match=says):
            connect(url)


def connect(url: str) -> None:
    """As a publisher does with this setting."""
    app = Celery(set_as_current=False)
    app.conf.update(engine_settings(load_settings(celery_broker_url=url)))
    with broker_faults(), app.connection_for_write() as connection:
        connection.connect()


def depth(rabbitmq: Any) -> int:
    """What waits in ``reports``, by the server's own word."""
    with Connection(rabbitmq.url) as connection, connection.channel() as channel:
        return int(channel.queue_declare("reports", passive=True).message_count)


def peek(rabbitmq: Any, count: int) -> list[str]:
    """The runs of the next messages, in the order of their delivery; all go back."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(Connection(rabbitmq.url))
        channel = stack.enter_context(connection.channel())
        taken = [channel.basic_get("reports") for _ in range(count)]
        return [message.headers["id"].split(":", 1)[0] for message in taken]
