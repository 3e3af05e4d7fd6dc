"""Chords of no-ops: four header tasks, then one body, by our application and by its peers.

Every contestant has two worker processes (or two workers) on one server, each in a
database of its own; whoever is not in turn is stopped meanwhile.  Where a library
knows no fan-in, the header tasks count themselves in Redis and the last one
starts the body, as its users do.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import in_fresh_process
from benchmarks.service import Service, service, wait_until
from benchmarks.usage import cpu_of, tree, usage_of
from cli.supervisor import Part

PEERS = {"dramatiq": "dramatiq", "taskiq": "taskiq_redis", "huey": "huey"}
"""Peers with the module that has to be installed.  arq needs an older redis client than ours."""
DATABASES = {"ours": 1, "celery": 2, "dramatiq": 3, "taskiq": 4, "huey": 5}
COMMANDS = {
    "ours": ["celery", "-A", "benchmarks.fan_ours", "worker", "-c", "2", "-l", "ERROR",
             "--without-gossip", "--without-mingle"],
    "celery": ["celery", "-A", "benchmarks.fan_celery", "worker", "-c", "2", "-l", "ERROR"],
    "dramatiq": ["dramatiq", "benchmarks.fan_dramatiq", "-p", "2", "-t", "1"],
    "taskiq": ["taskiq", "worker", "benchmarks.fan_taskiq:broker", "-w", "2"],
    "huey": ["huey.bin.huey_consumer", "benchmarks.fan_huey.huey", "-w", "2", "-k", "process"],
}  # fmt: skip
DONE = "done"
"""The key that a body counts up."""
URL = "FAN_URL"


@dataclass
class Samples:
    """Of one contestant, per turn."""

    rates: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


def list_contestants() -> list[str]:
    """Those that are installed."""
    there = [name for name, module in PEERS.items() if importlib.util.find_spec(module)]
    return ["ours", "celery", *there]


def measure_fan_in(*, rounds: int, count: int) -> list[Figure]:
    """Chords a second and CPU per chord, ours beside each."""
    names = list_contestants()
    with service() as made:
        for name in names:
            made.start(_worker(made, name))
        samples = {name: Samples() for name in names}
        for name in names:
            _turn(made, name, 5)  # until its workers are there
        for _ in range(rounds):
            for name in names:
                with _others_stopped(made, names, name):
                    rate, cpu = _turn(made, name, count)
                samples[name].rates.append(rate)
                samples[name].cpu_s.append(cpu / count)
        for name in names:
            samples[name].peak_mb = usage_of(made.supervisor.pid(name) or 0).peak_mb
    return [_figure(samples["ours"], samples[name], name) for name in names if name != "ours"]


def _figure(ours: Samples, other: Samples, name: str) -> Figure:
    rate, theirs = median(ours.rates), median(other.rates)
    return Figure(
        "fan-in",
        f"no-op chords/s beside {name}",
        rate,
        theirs,
        "/s",
        rate / theirs,
        told={
            "CPU per chord": f"{median(ours.cpu_s) * 1000:.1f} ms",
            "its": f"{median(other.cpu_s) * 1000:.1f} ms",
            "peak MB": ours.peak_mb,
            "its MB": other.peak_mb,
        },
    )


def _worker(made: Service, name: str) -> Part:
    environment = {**os.environ, **made.environment, URL: url_of(made.url, name)}
    return Part(
        name, [sys.executable, "-m", *COMMANDS[name]], environment, made.folder / f"{name}.log"
    )


def url_of(server: str, name: str) -> str:
    """A contestant's own database."""
    return f"{server.rpartition('/')[0]}/{DATABASES[name]}"


def _turn(made: Service, name: str, count: int) -> tuple[float, float]:
    """Chords a second from the first publish to the last body, and CPU seconds of all."""
    roots = [made.supervisor.pid(name) or 0, made.supervisor.pid("valkey") or 0]
    before = cpu_of(roots)
    rate, publisher = in_fresh_process(publish, made.url, name, count)
    return rate, cpu_of(roots) - before + publisher


def publish(server: str, name: str, count: int) -> tuple[float, float]:
    """Publish ``count`` chords and wait for their bodies.  For a fresh process.

    Returns chords a second, and this process's CPU seconds.
    """
    import redis

    os.environ[URL] = url_of(server, name)
    os.environ["REDIS_URL"] = server
    start: Callable[[int], None] = importlib.import_module(f"benchmarks.fan_{name}").start
    client: Any = redis.Redis.from_url(os.environ[URL])
    wanted = int(client.get(DONE) or 0) + count
    start(1)  # connects
    wait_until(f"{name}: first body", lambda: int(client.get(DONE) or 0) >= wanted - count + 1, 60)
    began, cpu = time.monotonic(), time.process_time()
    start(count)
    wait_until(
        f"{name}: bodies", lambda: int(client.get(DONE) or 0) >= wanted + 1, 120, pause_s=0.005
    )
    return count / (time.monotonic() - began), time.process_time() - cpu


@contextmanager
def _others_stopped(made: Service, names: list[str], name: str) -> Iterator[None]:
    others = [
        pid for other in names if other != name for pid in tree(made.supervisor.pid(other) or 0)
    ]
    _signal(others, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(others, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        if pid and Path(f"/proc/{pid}").exists():
            os.kill(pid, number)
