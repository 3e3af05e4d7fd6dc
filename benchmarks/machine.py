"""The machine a run was made on: figures of two machines are not to be compared."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "celery", "kombu", "redis", "sqlalchemy", "reportlab", "rl_accel", "jinja2", "msgspec",
    "orjson", "xlsxwriter", "typst", "weasyprint", "fpdf2", "dramatiq", "taskiq", "huey",
)  # fmt: skip


def describe_machine() -> dict[str, str]:
    """Processor, load, system and the versions of what is measured."""
    cpus = os.cpu_count()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "machine": f"{_cpu_model()}, {cpus} cores, load {load}",
        "system": f"{platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(
            f"{name} {number}" for name in LIBRARIES if (number := _version(name))
        ),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
