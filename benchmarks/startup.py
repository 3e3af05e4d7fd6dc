"""How long it takes until a command answers, or a worker is ready."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure
from benchmarks.render import Target
from benchmarks.service import service, wait_until
from cli.embedded import service_parts

SCRIPT = Path(sys.executable).with_name("scanherald")
ANSWERS = {
    "scanherald --help": ([str(SCRIPT), "--help"], 300),
    "scanherald health --live": ([str(SCRIPT), "health", "--live"], 150),
}
"""Commands with the milliseconds that they may take."""
READY = "ready."
"""The last word of the line that Celery prints when a worker takes tasks."""


def measure_startup(rounds: int) -> list[Figure]:
    """Wall milliseconds, and CPU beside them; Python's own start is told beside each."""
    bare: list[float] = []
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ANSWERS}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "SCANHERALD_DATA_DIR": folder}
        for _ in range(rounds):
            bare.append(_time([sys.executable, "-c", "pass"], environment)[0])
            for name, (command, _most) in ANSWERS.items():
                taken[name].append(_time(command, environment))
    figures = []
    for name, (_command, most) in ANSWERS.items():
        wall = median(wall for wall, _ in taken[name])
        cpu = median(cpu for _, cpu in taken[name])
        figures.append(
            Figure("start-up", name, wall, median(bare), "ms", wall, "ms", Target(most, "ms"),
                   {"CPU": f"{cpu:.0f} ms", "beside": "python -c pass"})
        )  # fmt: skip
    ready = median(_time_worker() for _ in range(max(1, rounds // 3)))
    figures.append(
        Figure("start-up", "worker ready, two processes", ready, None, "s", ready, "s",
               Target(3, "s"))
    )  # fmt: skip
    return figures


def _time(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU milliseconds."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user
    return wall * 1000, (cpu - before.children_system) * 1000


def _time_worker() -> float:
    with service(log_level="INFO") as made:
        part = service_parts(made.environment, 2, made.folder)[0]
        log = made.folder / "worker.log"
        began = time.perf_counter()
        made.start(part)
        wait_until("worker", lambda: log.exists() and READY in log.read_text(), 60, 0.01)
        return time.perf_counter() - began
