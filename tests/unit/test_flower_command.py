"""``scanherald flower`` where Flower is, and where it is not."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from cli import flower
from cli.main import app
from schemas.errors import InvalidSettings
from tasks import app as celery_app


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["flower"])
    assert isinstance(result.exception, InvalidSettings)
    assert "pip install 'scanherald[flower]'" in str(result.exception)


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ([], ["flower", "--port=5555", "--address=127.0.0.1"]),
        (
            ["--port", "80", "--host", "0.0.0.0", "--read-only"],
            ["flower", "--port=80", "--address=0.0.0.0", "--read-only=true"],
        ),
    ],
)
def test_it_serves_this_machine_unless_told_otherwise(
    typed: list[str], given: list[str], parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(celery_app, "start", started.append)
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)
    result = CliRunner().invoke(app, ["flower", *typed], catch_exceptions=False)
    assert result.exit_code == 0
    assert started == [given]


@pytest.mark.parametrize("wanted", [False, True])
def test_task_events_are_sent_by_setting_alone(wanted: bool, make_parts: Any) -> None:
    from tasks.app import celery_settings

    said = celery_settings(make_parts(task_events=wanted).settings)
    assert said["worker_send_task_events"] is said["task_send_sent_event"] is wanted
