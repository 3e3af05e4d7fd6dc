"""How we measure: CPU time of interleaved rounds, and memory, each in a fresh process.

CPU time is user and system time of all threads; on a shared machine it moves less
than the clock on the wall does.  What one machine does in a second means little:
only figures of one run are compared.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LEAST_SECONDS = 0.02
"""A shorter work is repeated within its round."""
MOST_SECONDS = 12.0
"""A contestant that has used so much CPU sits out the rounds that remain."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What one contestant took: CPU seconds (the median of its rounds), and what it made."""

    seconds: float
    rounds: int
    bytes: int


def in_fresh_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``work`` in a process of its own, which ends with it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(work, *args, **kwargs).result()


def time_rounds(contestants: Mapping[str, Callable[[], bytes]], rounds: int) -> dict[str, Timing]:
    """Let all take turns ``rounds`` times, so that a slow moment of the machine hits all."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    spent = dict.fromkeys(contestants, 0.0)
    sizes: dict[str, int] = {}
    for _ in range(rounds):
        for name, make in contestants.items():
            if spent[name] < MOST_SECONDS:
                seconds, total, sizes[name] = _time(make)
                samples[name].append(seconds)
                spent[name] += total
    return {
        name: Timing(median(seconds), len(seconds), sizes[name])
        for name, seconds in samples.items()
    }


def _time(make: Callable[[], bytes]) -> tuple[float, float, int]:
    """CPU seconds of one call and of all that it took to tell, and the size of the result."""
    gc.collect()
    calls = 0
    spent = 0.0
    start = time.process_time()
    while spent < LEAST_SECONDS:
        made = make()
        calls += 1
        spent = time.process_time() - start
    return spent / calls, spent, len(made)


def measure_peak(work: Callable[[], object]) -> int:
    """Bytes of resident memory that ``work`` adds at its peak to what this process holds now.

    For a fresh process: memory that earlier work gave back would be used again, unseen.
    Linux only.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _peak()
    work()
    return _peak() - before


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError("/proc/self/status has no VmHWM")
