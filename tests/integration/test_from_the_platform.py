"""The page for the platform's engineers, as it stands: its scripts, its Python, its commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.supervisor import Part

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "from-the-platform.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(service: Any, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def script(service: Any, name: str, *options: str) -> Part:
    """One of the platform's two scripts, as a process to keep running."""
    log = service.folder / "logs" / f"{name}.log"
    environment = {**os.environ, **service.environment}
    return Part(name, [sys.executable, str(ROOT / f"{name}.py"), *options], environment, log)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_all_that_the_page_says_works_as_it_is_written(service: Any, scans: list[bytes]) -> None:
    wanted = "3176b0cd-199b-5ec6-b280-ec5c6e92338a"
    assert wanted in PAGE
    service.start("listener")
    worker = script(
        service,
        "run_celery_worker",
        *("--queue", "default,reports", "--queue", "notifications", "--concurrency", "2"),
        *("--autoscale", "2,1", "--loglevel", "info", "--pool", "prefork"),
    )
    service.supervisor.start(worker)
    service.supervisor.start(script(service, "run_celery_beat"))
    (scan,) = [data for data in scans if orjson.loads(data)["scan_id"] == wanted]
    service.publish({"data": scan})
    added = service.scanherald(
        "subscribers", "add", "anna", "--user", "u-1", "--webhook", f"{service.sink.url}/anna"
    )
    assert added.returncode == 0, added.stderr
    service.wait(lambda: service.settled(1))

    python = blocks("python")
    assert len(python) == 5
    hook = f"{service.sink.url}/direct"
    said = run(service, "-c", "\n".join([f"hook = {hook!r}", *python, "print('all of it')"]))
    assert said.returncode == 0, said.stderr[-3000:] + service.last_words()
    assert said.stdout == "all of it\n"

    (commands,) = blocks("sh")
    for line in commands.splitlines():
        celery, *arguments = line.split()
        assert celery == "celery"
        said = run(service, "-m", "celery", *arguments)
        assert said.returncode == 0, f"{line}\n{said.stdout}{said.stderr}"
        assert "1 node online" in said.stdout, line
    service.wait(lambda: beat_has_swept(service))


def beat_has_swept(service: Any) -> bool:
    log = service.folder / "logs" / "run_celery_beat.log"
    return "Sending due task sweep" in log.read_text()


def test_the_scripts_refuse_what_would_look_healthy_and_do_nothing(service: Any) -> None:
    for option, value in (("--queue", "raports"), ("--pool", "gevent")):
        said = run(service, str(ROOT / "run_celery_worker.py"), option, value)
        assert said.returncode == 1
        assert f"{option} '{value}' is not one of" in said.stderr
    said = run(service, str(ROOT / "run_celery_worker.py"), "--loglevel", "loud")
    assert said.returncode == 1
    assert "SCANHERALD_LOG_LEVEL" in said.stderr
