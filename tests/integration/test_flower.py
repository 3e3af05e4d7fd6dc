"""Flower and Celery's own commands beside a real worker, as an engineer types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cli.embedded import free_port
from docs.generate import DOCS

pytestmark = pytest.mark.full

CELERY = str(Path(sys.executable).with_name("celery"))


def fetch(port: int, path: str, data: bytes | None = None) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=20) as answer:
        return str(answer.read().decode())


def tasks_shown(port: int) -> set[str]:
    asked = {"draw": "1", "start": "0", "length": "100", "search[value]": ""}
    asked |= {"order[0][column]": "0", "order[0][dir]": "asc", "columns[0][data]": "name"}
    said = json.loads(fetch(port, "/tasks/datatable", urllib.parse.urlencode(asked).encode()))
    return {row["name"] for row in said["data"]}


@pytest.mark.parametrize("typed", [["scanherald"], ["celery", "-A", "tasks"]], ids=" ".join)
def test_flower_shows_workers_queues_and_the_tasks_of_a_scan(
    typed: list[str], service: Any, scans: list[bytes], tmp_path: Path
) -> None:
    service.start()
    port = free_port()
    ours = typed == ["scanherald"]
    command = [sys.executable, "-m", "cli.main"] if ours else [CELERY, *typed[1:]]
    where = [] if ours else ["--address=127.0.0.1"]
    with (tmp_path / "flower.log").open("wb") as log:
        flower = subprocess.Popen(
            [*command, "flower", f"--port={port}", *where],
            env={**os.environ, **service.environment},
            cwd=DOCS.parent,
            stdout=log,
            stderr=log,
        )
    try:

        def is_up() -> bool:
            try:
                return "celery@" in fetch(port, "/workers")
            except OSError:
                return False

        service.wait(is_up)
        # it tells workers every five seconds to send events; the sweep's come each second
        service.wait(lambda: "scanherald.sweep" in tasks_shown(port))
        service.publish({"data": scans[0]})
        wanted = {"scanherald.render_and_finish"}
        service.wait(lambda: wanted <= tasks_shown(port))
        assert 'id="reports"' in fetch(port, "/broker")
    finally:
        flower.send_signal(signal.SIGTERM)
        assert flower.wait(20) == 0, (tmp_path / "flower.log").read_text()


def test_celerys_own_questions_are_answered(service: Any) -> None:
    service.start("worker")

    def ask(*words: str) -> str:
        return subprocess.run(
            [CELERY, "-A", "tasks", *words],
            env={**os.environ, **service.environment},
            cwd=DOCS.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout

    service.wait(lambda: "1 node online" in ask("status"))
    assert "scanherald.render_report" in ask("inspect", "registered")
    assert "'name': 'notifications'" in ask("inspect", "active_queues")
    assert "prefetch_count" in ask("inspect", "stats")
    for question in ("active", "scheduled"):
        assert "- empty -" in ask("inspect", question)
