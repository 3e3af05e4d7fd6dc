"""Messages of a newer release wait for its workers, and the runs they belong to go on."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from celery import Celery

from tasks.newer import ARGUMENTS_VERSION, ASIDE, HEADER
from tests.conftest import Service
from tests.integration.test_upgrade import results

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def newer_message(
    service: Service,
    name: str,
    task_id: str,
    queue: str,
    version: int = ARGUMENTS_VERSION + 1,
    **arguments: Any,
) -> None:
    """What a release after this one would publish."""
    with Celery(broker=service.environment["REDIS_URL"]) as publisher:
        publisher.conf.task_default_queue = queue
        publisher.send_task(
            name,
            kwargs=arguments,
            task_id=task_id,
            queue=queue,
            headers={HEADER: version},
        )


def aside(service: Service) -> list[dict[str, Any]]:
    with contextlib.closing(service.redis()) as client:
        return [json.loads(item)["headers"] for item in client.lrange(ASIDE, 0, -1)]


def test_a_newer_releases_messages_wait_and_its_runs_go_on(
    service: Service, scans: list[bytes]
) -> None:
    """An unknown task and an unknown argument; the run they belong to is the sweep's."""
    service.environment |= {"SCANHERALD_RUN_DEADLINE_S": "3", "SCANHERALD_FORMATS": "json"}
    service.start("listener")
    service.publish({"data": scans[0]})
    service.wait(lambda: [run["state"] for run in service.runs()] == ["dispatched"])
    (run,) = service.runs()
    with contextlib.closing(service.redis()) as client:
        client.delete("reports")  # in its place the newer release's messages
    known = {"run_id": run["run_id"], "attempt": 1}
    newer_message(service, "scanherald.render_faster", "header", "reports", **known)
    newer_message(service, "scanherald.finish_run", "body", "notifications", mood="fine", **known)
    newer_message(service, "get_task_statistics", "figures", "default", hours=1)
    newer_message(service, "no_such_task", "mistaken", "default", version=ARGUMENTS_VERSION)
    service.start_part("worker")
    service.wait(lambda: len(aside(service)) == 3)
    assert {item["id"] for item in aside(service)} == {"header", "body", "figures"}
    service.wait(lambda: "mistaken" in results(service))
    assert results(service).keys() == {"mistaken"}
    assert results(service)["mistaken"]["status"] == "FAILURE", "no newer release's, so a mistake"
    said = service.scanherald("health", "broker")
    assert "3 messages of a newer release wait" in said.stdout

    service.start_part("beat")
    service.wait(lambda: service.settled(1))
    (run,) = service.runs()
    assert (run["state"], run["attempt"] > 1) == ("done", True)
    assert len(aside(service)) == 3, "looked at by every sweep, and left"

    with contextlib.closing(service.redis()) as client:  # as if this were the newer release now
        for item in client.lrange(ASIDE, 0, -1):
            if b"get_task_statistics" in item:
                message = json.loads(item)
                message["headers"][HEADER] = ARGUMENTS_VERSION
                client.lrem(ASIDE, 1, item)
                client.lpush(ASIDE, json.dumps(message))
    service.wait(lambda: "figures" in results(service))
    assert results(service)["figures"]["status"] == "SUCCESS"
    assert results(service)["figures"]["result"]["hours"] == 1
