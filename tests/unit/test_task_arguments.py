"""The tasks' names and arguments are a contract between releases that share a broker."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import tasks
from tasks.newer import ARGUMENTS_VERSION, is_newer

RECORDED = Path(__file__).parents[1] / "data" / "task-arguments.json"


def arguments() -> dict[str, str]:
    """Each task's arguments with their defaults, without their types."""
    tasks.app.loader.import_default_modules()
    return {
        name: str(_bare(inspect.signature(task.run)))
        for name, task in sorted(tasks.app.tasks.items())
        if not name.startswith("celery.")
    }


def _bare(signature: inspect.Signature) -> inspect.Signature:
    parameters: list[Any] = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return inspect.Signature(parameters)


def test_tasks_and_arguments_change_only_with_their_version() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert arguments() == recorded["tasks"], (
        "raise ARGUMENTS_VERSION in tasks/newer.py, then record the new arguments in "
        f"{RECORDED.name}; see docs/upgrading.md"
    )
    assert recorded["version"] == ARGUMENTS_VERSION


def test_only_a_higher_version_is_newer() -> None:
    assert not is_newer(None)
    assert not is_newer({})
    assert not is_newer({"arguments_version": ARGUMENTS_VERSION})
    assert not is_newer({"arguments_version": "9"})
    assert is_newer({"arguments_version": ARGUMENTS_VERSION + 1})
