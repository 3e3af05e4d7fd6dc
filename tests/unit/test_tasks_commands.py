"""``tasks …`` and ``stats`` on a broker in memory: what is shown, and asked before it is gone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app
from cli.output import confirm
from schemas.errors import BrokerUnavailable, InvalidSettings
from tasks import wiring
from tasks.cleanup import cleanup_old_reports
from tasks.finish import settle
from tasks.monitoring import get_celery_monitor
from tasks.notifications import try_delivery
from tasks.reports import render_formats

ACTIVE = {
    "worker@one": [
        {
            "id": "t-1",
            "name": "generate_report_async",
            "args": [],
            "time_start": 1_800_000_000.0,
            "worker_pid": 17,
        }
    ]
}
HELD = {"worker@one": [{"eta": "2026-03-04T12:05:00", "request": {"id": "t-2", "name": "deliver"}}]}


@pytest.fixture
def answers(parts: Any, broker: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What workers say to each question; the command's settings are those of the test."""
    said: dict[str, Any] = {"active": ACTIVE, "scheduled": HELD}
    inspect = SimpleNamespace(active=lambda: said["active"], scheduled=lambda: said["scheduled"])
    monkeypatch.setattr(broker.control, "inspect", lambda timeout: inspect)
    monkeypatch.setattr(wiring, "use", lambda _: None)
    monkeypatch.setattr(parts, "close", lambda: None)
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    return said


@pytest.fixture
def run(answers: Any) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def fails(*arguments: str) -> BaseException:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 1
    assert result.exception is not None
    return result.exception


def test_tasks_in_hand_are_listed_by_worker(run: Any) -> None:
    assert json.loads(run("tasks", "active", "--json")) == ACTIVE
    said = run("tasks", "active")
    assert "generate_report_async" in said
    assert "2027-01-15 08:00:00" in said


def test_an_idle_worker_is_told_from_none(run: Any, answers: dict[str, Any]) -> None:
    answers["active"] = {"worker@one": []}
    assert run("tasks", "active") == "1 workers answer, and have nothing in hand.\n"
    answers["active"] = None
    error = fails("tasks", "active")
    assert isinstance(error, BrokerUnavailable)
    assert "no worker answers" in str(error)
    assert run("tasks", "active", "--json") == "{}\n"


def test_registered_and_scheduled_tasks_are_listed(run: Any) -> None:
    assert "get_task_statistics" in run("tasks", "registered").splitlines()
    assert "cleanup_old_reports" in json.loads(run("tasks", "registered", "--json"))
    said = run("tasks", "scheduled")
    assert "monitor-celery-health" in said
    assert "2026-03-04T12:05:00" in said
    assert json.loads(run("tasks", "scheduled", "--json"))["workers"] == HELD


def test_a_status_is_celerys_or_the_ledgers(
    run: Any, broker: Any, parts: Any, record: Any, make_scan: Any
) -> None:
    broker.backend.store_result("t-1", {"deleted_count": 3}, "SUCCESS")
    assert "SUCCESS" in run("tasks", "status", "t-1")
    ticket = record(parts, make_scan())
    found = json.loads(run("tasks", "status", f"{ticket.run_id}:pdf:a1", "--json"))
    assert (found["source"], found["state"]) == ("ledger", "recorded")
    assert "Neither Celery nor the ledger knows more" in run("tasks", "status", "nothing")


def test_nothing_is_destroyed_without_a_yes(run: Any, broker: Any) -> None:
    cleanup_old_reports.apply_async(queue="reports")
    for arguments in (("purge", "reports"), ("revoke", "t-1", "--terminate")):
        error = fails("tasks", *arguments)
        assert isinstance(error, InvalidSettings)
        assert "add --yes" in str(error)
    assert get_celery_monitor().get_queue_stats()["queues"]["reports"] == 1


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_person_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if goes_on:
        confirm("Drop it?", yes=False)
    else:
        with pytest.raises(typer.Abort):
            confirm("Drop it?", yes=False)


def test_a_purge_says_what_the_sweep_will_do(run: Any, broker: Any) -> None:
    cleanup_old_reports.apply_async(queue="reports")
    cleanup_old_reports.apply_async(queue="default")
    said = run("tasks", "purge", "reports", "--yes")
    assert said.startswith("1 messages dropped. Nothing recorded is lost: the sweep publishes")
    assert "15 min" in said
    found = json.loads(run("tasks", "purge", "default", "--yes", "--json"))
    assert (found["queues"], found["purged"]) == ({"default": 1}, 1)
    assert found["afterwards"].startswith("Beat asks again")
    assert "no queue 'celery'" in str(fails("tasks", "purge", "celery", "--yes"))


def test_a_task_is_revoked(run: Any, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    revoked: list[Any] = []
    monkeypatch.setattr(
        broker.control, "revoke", lambda task_id, terminate: revoked.append((task_id, terminate))
    )
    assert "leave t-1" in run("tasks", "revoke", "t-1", "--yes")
    assert json.loads(run("tasks", "revoke", "t-2", "--terminate", "--yes", "--json"))["revoked"]
    assert revoked == [("t-1", False), ("t-2", True)]


def test_stats_tell_what_the_tasks_keep(
    run: Any,
    parts: Any,
    record: Any,
    make_scan: Any,
    subscribe: Any,
    client: Any,
    join: Any,
    published: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    join()
    client.xadd("scans:events", {"data": "{}"})
    subscribe(parts)
    monkeypatch.setattr(wiring, "utc_now", parts.clock)
    monkeypatch.setattr(wiring, "wire", lambda _: parts)
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, ticket.formats)
    for delivery in settle(parts, ticket.run_id, 1):
        try_delivery(parts, delivery)
    found = json.loads(run("stats", "--json"))
    assert found["tasks"]["per_hour"] == {
        "events": 0.04,
        "runs_done": 0.04,
        "reports_ready": 0.17,
    }
    assert found["tasks"]["oldest_unfinished_run_s"] is None
    assert set(found["tasks"]["reports"]["pdf"]["render_ms"]) == {"p50", "p95", "p99"}
    assert found["notifications"]["success_rate"] == 1.0
    assert found["stream"][0]["unread"] == 1
    said = run("stats", "--hours", "1")
    assert "events       1 scan.completed; 1.0 per hour" in said
    assert "scans:events: 1 unread" in said
    assert "100.0% of the tries succeeded" in said


def test_stats_of_an_empty_ledger_without_redis(run: Any, parts: Any) -> None:
    said = run("stats")
    assert "events       none; 0.0 per hour" in said
    assert "redis: ConnectionError" in said
    assert "no tries" in said
