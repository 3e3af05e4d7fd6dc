"""The road with real processes: Valkey, listener, worker, beat."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest


def test_a_published_scan_becomes_four_artifacts_and_one_message_per_channel(
    service: Any, scans: list[bytes]
) -> None:
    service.start()
    service.subscribe(mail=True)
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))

    reports = service.reports()
    assert sorted(row["format"] for row in reports) == ["csv", "html", "json", "pdf"]
    for row in reports:
        assert hashlib.sha256(Path(row["uri"]).read_bytes()).hexdigest() == row["sha256"]
    planned = Counter(row["channel"] for row in service.deliveries())
    assert planned["webhook"] == planned["email"] >= 1
    assert all(row["state"] == "sent" for row in service.deliveries())
    assert len(service.sink.requests) == planned["webhook"]
    assert len(service.mails.messages) == planned["email"]


def test_all_header_results_reach_the_body_though_none_is_stored(
    service: Any, scans: list[bytes]
) -> None:
    service.environment["SCANHERALD_TOGETHER_BYTES"] = "0"  # else one task makes all of them
    service.start()
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))

    finished = [line for line in service.log_lines("worker") if line["event"] == "run_finished"]
    merged = {name: status for part in finished[0]["header"] for name, status in part.items()}
    assert merged == {"pdf": "ready", "html": "ready", "json": "ready", "csv": "ready"}
    client = service.redis()
    assert client.keys("celery-task-meta-*") == []
    client.close()


def test_the_same_event_published_twice_and_again_makes_one_of_everything(
    service: Any, scans: list[bytes]
) -> None:
    service.start()
    service.subscribe()
    service.publish({"data": scans[1]}, {"data": scans[1]})
    service.wait(lambda: service.settled(1))
    service.publish({"data": scans[1]}, {"data": scans[2]})
    service.wait(lambda: service.settled(2))

    assert len(service.runs()) == 2
    assert len(service.reports()) == 8
    ids = [request.headers["webhook-id"] for request in service.sink.requests]
    assert len(ids) == len(set(ids)) == len(service.deliveries())


def test_a_publisher_holds_no_subscriptions(service: Any, scans: list[bytes]) -> None:
    service.start()
    service.publish(*({"data": data} for data in scans))
    service.wait(lambda: service.settled(len(scans)))

    client = service.redis()
    assert client.pubsub_channels("celery-task-meta-*") == []
    client.close()


def test_events_without_reports_take_the_short_way(service: Any) -> None:
    service.start()
    service.subscribe()
    service.publish(
        {"type": "scan.failed", "data": b'{"scan_id":"s-1","domain":"a.example","error":"DNS"}'},
        {"type": "schedule.created", "data": b'{"message":"weekly"}', "subject": "b.example"},
    )
    service.wait(lambda: service.settled(2))

    assert service.reports() == []
    bodies = [orjson.loads(request.body) for request in service.sink.requests]
    assert sorted(body["type"] for body in bodies) == ["scan.failed", "schedule.created"]


def test_a_dataref_is_fetched_by_a_task_and_goes_the_usual_way(
    service: Any, scans: list[bytes], tmp_path: Path
) -> None:
    root = tmp_path / "refs"
    root.mkdir()
    (root / "scan.json").write_bytes(scans[0])
    service.environment["SCANHERALD_DATAREF_FILE_ROOTS"] = str(root)
    service.start()
    service.publish({"dataref": (root / "scan.json").as_uri()})
    service.wait(lambda: service.settled(1))

    assert len(service.reports()) == 4
    assert service.runs()[0]["state"] == "done"


PLATFORM = """
import sys
from tasks import (export_scan_to_csv_async, generate_multiple_reports_async,
                   generate_report_async, get_task_statistics, monitor_celery_health,
                   send_event_notifications_async, send_notification_async, app)
from tasks.monitoring import get_celery_monitor
from celery.result import AsyncResult

scan_id, hook = sys.argv[1:]
task = generate_report_async.delay(scan_id=scan_id, format="pdf")
one = task.get(timeout=60)
assert one["status"] == "completed" and one["file_size"] > 1000, one
assert AsyncResult(task.id, app=app).state == "SUCCESS"
many = generate_multiple_reports_async.delay(scan_id, ["html", "json"]).get(timeout=60)
assert many["total_generated"] == 2 and many["total_failed"] == 0, many
assert export_scan_to_csv_async.delay(scan_id).get(timeout=60)["format"] == "csv"
sent = send_notification_async.delay(
    {"event": "scan.completed", "data": {"domain": "a.example"}, "channel": "webhook"},
    {"webhook_url": hook, "webhook_secret": "whsec_" + "A" * 32},
).get(timeout=60)
assert sent["success"] and sent["status"] == "sent", sent
told = send_event_notifications_async.delay("scan.failed", {"error": "x"}, "u-1").get(timeout=60)
assert told["notifications_sent"] == 1, told
assert monitor_celery_health.delay().get(timeout=60)["status"] == "healthy"
assert get_task_statistics.delay(hours=1).get(timeout=60)["runs"]["done"] == 1
monitor = get_celery_monitor()
assert monitor.get_worker_stats()["total_workers"] == 1
assert set(monitor.get_queue_stats()["queues"]) == {"default", "reports", "notifications"}
try:
    generate_report_async.delay("00000000-0000-0000-0000-000000000000", "pdf").get(timeout=60)
except Exception as error:
    assert "no scan" in str(error), error
else:
    raise AssertionError("an unknown scan made a report")
print("ok")
"""


def test_the_platform_calls_the_public_tasks_as_it_always_did(
    service: Any, scans: list[bytes]
) -> None:
    service.start()
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))
    added = service.scanherald(
        "subscribers", "add", "u", "--user", "u-1", "--webhook", f"{service.sink.url}/u"
    )
    assert added.returncode == 0, added.stderr
    scan_id = orjson.loads(scans[0])["scan_id"]

    said = subprocess.run(
        [sys.executable, "-c", PLATFORM, scan_id, f"{service.sink.url}/direct"],
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert said.returncode == 0, said.stderr[-3000:] + service.last_words()
    assert said.stdout == "ok\n"
    assert sorted(request.path for request in service.sink.requests) == ["/direct", "/u"]


def test_celery_s_own_command_line_works(service: Any) -> None:
    service.start("worker")
    environment = {**os.environ, **service.environment}

    def celery(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tasks", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    service.wait(lambda: "pong" in celery("inspect", "ping").stdout)
    registered = celery("inspect", "registered").stdout
    for name in (
        "generate_report_async",
        "generate_multiple_reports_async",
        "export_scan_to_csv_async",
        "cleanup_old_reports",
        "send_notification_async",
        "send_event_notifications_async",
        "send_bulk_notifications_async",
        "cleanup_old_notifications",
        "monitor_celery_health",
        "monitor_notification_health",
        "get_notification_stats",
        "get_task_statistics",
    ):
        assert name in registered


@pytest.mark.parametrize(
    ("together", "tasks"),
    [
        (None, {"scanherald.render_and_finish": 1}),
        ("0", {"scanherald.render_report": 4, "scanherald.finish_run": 1}),
    ],
    ids=["task", "chord"],
)
def test_every_task_s_start_and_end_is_logged_with_its_run(
    service: Any, scans: list[bytes], together: str | None, tasks: dict[str, int]
) -> None:
    if together is not None:
        service.environment["SCANHERALD_TOGETHER_BYTES"] = together
    service.start()
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))
    run_id = service.runs()[0]["run_id"]

    lines = [line for line in service.log_lines("worker") if line.get("run_id") == run_id]
    started = Counter(line["task"] for line in lines if line["event"] == "task_started")
    assert started == tasks
    recorded = [line["event"] for line in service.log_lines("listener")]
    assert "batch_recorded" in recorded
    assert "runs_dispatched" in recorded
