"""Logs: facts with bound ids, as JSON where nobody looks, and never a payload."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

import tasks.task_log  # noqa: F401  # connects the signal handlers, as a worker does
from schemas.errors import LedgerUnavailable
from schemas.settings import load_settings
from tasks import export_scan_to_csv_async, send_notification_async
from tasks.app import _our_logs_only
from tasks.logs import configure_logs
from tasks.notifications import deliver
from tasks.reports import render_report

SECRET = "s3cret-payload"

CHATTY = ("httpx", "httpcore", "alembic", "aiosmtpd", "mail.log", "celery.pool")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is the process's own: put back what was there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def lines(clean_environment: None) -> Callable[[], list[dict[str, Any]]]:
    """Everything logged to standard error since the last call, parsed."""
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        configure_logs(load_settings(log_format="json", data_dir="unused"))
    # a module's logger would keep this configuration for all later tests
    structlog.configure(cache_logger_on_first_use=False)

    def lines() -> list[dict[str, Any]]:
        said = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return [json.loads(line) for line in said.splitlines()]

    return lines


def test_a_line_is_one_json_object_with_time_level_logger_and_bound_ids(lines: Any) -> None:
    with structlog.contextvars.bound_contextvars(run_id="r-1"):
        structlog.get_logger("tasks.sweep").warning("run_postponed", attempt=2)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "run_postponed",
        "level": "warning",
        "logger": "tasks.sweep",
        "run_id": "r-1",
        "attempt": 2,
    }


def test_hostile_values_cannot_start_a_line_of_their_own(lines: Any) -> None:
    structlog.get_logger("x").info("entry_dead", reason='a\n{"event":"forged"}\x1b[2J')
    (line,) = lines()
    assert line["reason"] == 'a\n{"event":"forged"}\x1b[2J'


def test_an_exception_is_part_of_its_line(lines: Any) -> None:
    try:
        raise LedgerUnavailable("locked")
    except LedgerUnavailable:
        structlog.get_logger("x").exception("render_crashed")
    (line,) = lines()
    assert line["exception"].splitlines()[-1].endswith("LedgerUnavailable: locked")


def test_other_libraries_speak_with_the_same_voice(lines: Any) -> None:
    with structlog.contextvars.bound_contextvars(run_id="r-1"):
        logging.getLogger("celery.worker").warning("missed %s", "heartbeat")
    (line,) = lines()
    assert (line["event"], line["logger"], line["run_id"]) == (
        "missed heartbeat",
        "celery.worker",
        "r-1",
    )


def test_lines_below_the_level_are_not_written(
    clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(load_settings(log_format="json", log_level="warning", data_dir="unused"))
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert "quiet" not in (said := capsys.readouterr().err)
    assert "loud" in said


def test_libraries_that_log_addresses_are_kept_quiet(lines: Any) -> None:
    for name in CHATTY:
        logging.getLogger(name).info("POST https://hooks.example/%s", SECRET)
    assert lines() == []


def test_configuring_again_does_not_double_a_line(
    lines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(load_settings(log_format="json", data_dir="unused"))
    structlog.get_logger("x").info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert lines() == []


def test_without_a_terminal_the_logs_are_json_and_on_demand_for_eyes(
    clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(load_settings(log_format="auto", data_dir="unused"))
    structlog.get_logger("x").info("by_itself")
    assert json.loads(capsys.readouterr().err)["event"] == "by_itself"
    structlog.reset_defaults()
    configure_logs(load_settings(log_format="console", data_dir="unused"))
    structlog.get_logger("y").info("for_eyes", run_id="r-1")
    said = capsys.readouterr().err
    assert "for_eyes" in said
    assert not said.startswith("{")


def test_celery_leaves_logging_to_us(parts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _our_logs_only()
    structlog.get_logger("x").info("ours")
    assert json.loads(capsys.readouterr().err)["event"] == "ours"


def by_event(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {line["event"]: line for line in lines}


def test_a_task_says_start_and_end_with_the_ids_it_works_on(parts: Any, lines: Any) -> None:
    render_report.apply(("r-1", 2, ["pdf"]), task_id="r-1:pdf:a2").get()
    found = by_event(lines())
    for event in ("task_started", "task_ended"):
        assert found[event]["task"] == "scanherald.render_report"
        assert found[event]["task_id"] == "r-1:pdf:a2"
        assert (found[event]["run_id"], found[event]["attempt"]) == ("r-1", 2)
        assert found[event]["formats"] == ["pdf"]
    assert found["task_ended"]["state"] == "SUCCESS"
    assert found["task_ended"]["duration_ms"] >= 0


def test_ids_given_by_name_are_bound_too(parts: Any, lines: Any) -> None:
    deliver.apply(kwargs={"delivery_id": "d-1", "number": 3}).get()
    started = by_event(lines())["task_started"]
    assert (started["delivery_id"], started["number"]) == ("d-1", 3)


def test_payloads_and_addresses_of_a_task_are_never_logged(parts: Any, lines: Any) -> None:
    send_notification_async.apply(
        (
            {"notification_id": "n-1", "event": "scan.failed", "data": {"error": SECRET}},
            {"webhook_url": f"https://r.example/{SECRET}", "webhook_secret": SECRET},
        )
    ).get()
    found = lines()
    assert {"task_started", "task_ended"} <= set(by_event(found))
    assert SECRET not in json.dumps(found)
    assert "r.example" not in json.dumps(found)


def test_a_failed_task_says_so_with_its_error(parts: Any, lines: Any) -> None:
    result = export_scan_to_csv_async.apply(("no-such-scan",), task_id="t-1")
    assert result.failed()
    found = by_event(lines())
    assert found["task_failed"]["level"] == "error"
    assert found["task_failed"]["task_id"] == "t-1"
    assert found["task_failed"]["error"].startswith("NotFound: no scan no-such-scan")
    assert found["task_ended"]["state"] == "FAILURE"


def test_a_retried_task_says_so_with_its_reason(
    parts: Any, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [LedgerUnavailable("ledger: database is locked")]
    real = parts.ledger.write

    def write() -> Any:
        if faults:
            raise faults.pop()
        return real()

    monkeypatch.setattr(parts.ledger, "write", write)
    deliver.apply(("d-1", 1), task_id="d-1:a1").get()
    retried = by_event(lines())["task_retried"]
    assert retried["task_id"] == "d-1:a1"
    assert "database is locked" in retried["reason"]


def test_one_tasks_ids_do_not_reach_the_next_ones_lines(parts: Any, lines: Any) -> None:
    render_report.apply(("r-1", 1, ["pdf"])).get()
    lines()
    deliver.apply(("d-1", 1)).get()
    structlog.get_logger("x").info("afterwards")
    for line in lines():
        assert "run_id" not in line
        if line["event"] == "afterwards":
            assert "delivery_id" not in line
