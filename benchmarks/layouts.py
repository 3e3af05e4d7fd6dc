"""One task for a whole run beside a chord of one task per format, by the size of the scan.

Two services stand up at once and take turns, alike but for
``SCANHERALD_TOGETHER_BYTES``: what a burst costs and how fast it is through, and how
long a scan takes that comes alone.  Where the second turns against the one task, its
bound belongs.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks.end_to_end import Ours, Turn, quantile
from benchmarks.figures import Figure
from benchmarks.service import make_scan, service
from benchmarks.sink import sink

ALWAYS, NEVER = 1 << 40, 0
BURSTS = {200: 40, 1_000: 16, 2_000: 8, 5_000: 4, 20_000: 2}
"""Scans of one turn, by cookies."""
ALONE_EVERY_S = {200: 0.5, 1_000: 1.0, 2_000: 1.5, 5_000: 2.0, 20_000: 6.0}
"""So far apart that each finds an idle service."""
ALONE = {200: 6, 1_000: 6, 2_000: 6, 5_000: 4, 20_000: 2}


def measure_layouts(*, full: bool) -> list[Figure]:
    """Figures for each size; ``full`` has the largest and more rounds."""
    sizes = tuple(BURSTS) if full else (200, 1_000, 2_000)
    figures = []
    with ExitStack() as stack:
        arrivals = stack.enter_context(sink())
        kinds = {}
        for name, together_bytes in (("task", ALWAYS), ("chord", NEVER)):
            made = stack.enter_context(
                service(allow=f"127.0.0.1:{arrivals.port}", together_bytes=together_bytes)
            )
            made.subscribe({name: f"http://127.0.0.1:{arrivals.port}/{name}"})
            made.start_parts()
            kinds[name] = Ours(made, arrivals, [f"/{name}"], name)
            kinds[name].run([make_scan(f"{name} warm {n}", 200) for n in range(8)])
        for cookies in sizes:
            figures += _figures(kinds["task"], kinds["chord"], cookies, 3 if full else 2)
    return figures


def _figures(task: Ours, chord: Ours, cookies: int, rounds: int) -> list[Figure]:
    turns: dict[str, list[Turn]] = {task.name: [], chord.name: []}
    waits: dict[str, list[float]] = {task.name: [], chord.name: []}
    for number in range(rounds):
        for one in (task, chord):
            label = f"{one.name} {cookies} {number}"
            burst = [make_scan(f"{label} {n}", cookies) for n in range(BURSTS[cookies])]
            turns[one.name].append(one.run(burst))
            alone = [make_scan(f"{label} alone {n}", cookies) for n in range(ALONE[cookies])]
            waits[one.name] += one.run(alone, ALONE_EVERY_S[cookies]).files
    kb = len(make_scan("size", cookies)) / 1000
    ours, theirs = turns[task.name], turns[chord.name]
    cpu, chord_cpu = (median(turn.cpu_per_scan for turn in one) * 1000 for one in (ours, theirs))
    rate, chord_rate = (median(turn.rate for turn in one) for one in (ours, theirs))
    wait, chord_wait = (quantile(waits[one.name], 0.5) * 1000 for one in (task, chord))
    what = f"{cookies:,} cookies ({kb:,.0f} KB)"
    return [
        Figure("layouts", f"{what}, burst: one task beside a chord, CPU per scan", cpu, chord_cpu,
               "ms", cpu / chord_cpu),
        Figure("layouts", f"{what}, burst: one task beside a chord, scans/s", rate, chord_rate,
               "/s", rate / chord_rate),
        Figure("layouts", f"{what}, alone: one task beside a chord, p50 to the last artifact",
               wait, chord_wait, "ms", wait / chord_wait),
    ]  # fmt: skip
