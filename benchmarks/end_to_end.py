"""A scan's whole way, from XADD to the last artifact and the last delivery, beside a naive one.

Both services stand up at the same time, each with a Valkey of its own, and take
turns; CPU seconds are those of all processes of one service, its server included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import func, select

from benchmarks.figures import Figure
from benchmarks.floor_pdf import draw_pdf
from benchmarks.inventory import eight_columns, summarise
from benchmarks.measure import in_fresh_process
from benchmarks.naive import assess_scan
from benchmarks.render import Target
from benchmarks.service import (
    STREAM,
    Service,
    make_scan,
    real_scans,
    scan_id_of,
    service,
    wait_until,
)
from benchmarks.sink import Sink, sink
from benchmarks.usage import Usage
from cli.supervisor import Part
from renderers.registry import render
from schemas.reports import DEFAULT_FORMATS, Format
from store.tables import reports

COOKIES = 200
PACE = 0.6
"""Share of its own capacity at which a contestant is paced."""

Publish = Callable[[Sequence[bytes]], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one contestant.  ``files`` and ``sends`` are seconds from each scan's XADD."""

    scans: int
    seconds: float
    cpu_s: dict[str, float]
    files: list[float]
    sends: list[float]

    @property
    def rate(self) -> float:
        """Scans a second, to the last artifact and delivery."""
        return self.scans / self.seconds

    @property
    def cpu_per_scan(self) -> float:
        """CPU seconds of everything that ran for a scan."""
        return sum(self.cpu_s.values()) / self.scans


class Contestant:
    """A service that is up.  ``hooks`` are the paths of its deliveries."""

    def __init__(self, made: Service, arrivals: Sink, hooks: Sequence[str], name: str) -> None:
        self.made = made
        self.name = name
        self._sink = arrivals
        self._hooks = hooks
        self._client: Any = made.client()

    def count_files(self) -> int:
        """Artifacts so far."""
        raise NotImplementedError

    def file_times(self) -> dict[str, float]:
        """When each scan's last artifact was there, by scan id, on the wall clock."""
        raise NotImplementedError

    def run(self, scans: Sequence[bytes], every_s: float = 0.0) -> Turn:
        """Publish scans, all at once or paced, and wait for all that comes of them."""
        files, sent = self.count_files(), self._count_sends()
        before = self.made.usage()
        began, at = time.monotonic(), {}
        for number, scan in enumerate(scans):
            time.sleep(max(0.0, began + number * every_s - time.monotonic()))
            at[scan_id_of(scan)] = time.time()
            self._client.xadd(STREAM, {"data": scan})
        wait_until(
            f"{self.name}: artifacts",
            lambda: self.count_files() >= files + len(scans) * len(DEFAULT_FORMATS),
            300,
        )
        wait_until(
            f"{self.name}: deliveries",
            lambda: self._count_sends() >= sent + len(scans) * len(self._hooks),
            300,
        )
        seconds = time.monotonic() - began
        after = self.made.usage()
        there, told = self.file_times(), self._send_times()
        sys.stderr.write(f"  {self.name}: {len(scans)} scans in {seconds:.1f} s\n")
        return Turn(
            len(scans),
            seconds,
            {name: after[name].cpu_s - before[name].cpu_s for name in before},
            [there[scan] - moment for scan, moment in at.items()],
            [told[scan] - moment for scan, moment in at.items()],
        )

    def peak_mb(self) -> dict[str, Usage]:
        """Peak memory of each process tree."""
        return self.made.usage()

    def _count_sends(self) -> int:
        return len([path for _, path, _ in self._sink.arrivals() if path in self._hooks])

    def _send_times(self) -> dict[str, float]:
        return {scan: at for scan, path, at in self._sink.arrivals() if path in self._hooks}


class Ours(Contestant):
    """The service as it is installed, its ledger and leases on."""

    def count_files(self) -> int:
        with self.made.ledger.read() as connection:
            return connection.execute(
                select(func.count()).select_from(reports).where(reports.c.status == "ready")
            ).scalar_one()

    def file_times(self) -> dict[str, float]:
        with self.made.ledger.read() as connection:
            rows = connection.execute(
                select(reports.c.scan_id, func.max(reports.c.ready_at)).group_by(reports.c.scan_id)
            )
            # noted after the artifact is stored: if anything, later than it was there
            return {scan_id: _seconds(ready) for scan_id, ready in rows}


class Naive(Contestant):
    """The one task of ``naive``."""

    @property
    def _folder(self) -> Path:
        return self.made.folder / "naive"

    def count_files(self) -> int:
        return len(list(self._folder.glob("*"))) if self._folder.is_dir() else 0

    def file_times(self) -> dict[str, float]:
        times: dict[str, float] = {}
        for path in self._folder.glob("*"):
            times[path.stem] = max(times.get(path.stem, 0.0), path.stat().st_mtime)
        return times


def measure_end_to_end(
    *, rounds: int, burst: int, naive_burst: int, paced: int, hooks: int = 1, real: bool = False
) -> list[Figure]:
    """Figures of bursts and of a paced run, with so many deliveries a scan."""
    kind = "real scans" if real else f"{COOKIES} cookies"
    part = f"end to end, {hooks} hook{'s' * (hooks > 1)}"
    with ExitStack() as stack:
        arrivals = stack.enter_context(sink())
        ours, naive = _contestants(stack, arrivals, hooks)
        for number in range(2):  # fonts, templates, statements, connections
            ours.run(_scans(f"warm {number}", 4, real=False))
            naive.run(_scans(f"warm {number}", 4, real=False))
        turns: list[Turn] = []
        naive_turns: list[Turn] = []
        bare: list[Pure] = []
        sample = _scans("burst 0", min(burst, 40), real=real)
        for number in range(rounds):
            turns.append(ours.run(_scans(f"burst {number}", burst, real=real)))
            naive_turns.append(naive.run(_scans(f"naive {number}", naive_burst, real=real)))
            bare.append(in_fresh_process(time_pure, sample))
        rate = median(turn.rate for turn in turns)
        naive_rate = median(turn.rate for turn in naive_turns)
        pure = Pure(*(median(taken) for taken in zip(*map(astuple, bare), strict=True)))
        cpu = median(turn.cpu_per_scan for turn in turns)
        naive_cpu = median(turn.cpu_per_scan for turn in naive_turns)
        peaks = {name: usage.peak_mb for name, usage in ours.peak_mb().items()}
        naive_peaks = {name: usage.peak_mb for name, usage in naive.peak_mb().items()}
        figures = [
            Figure(
                part, f"burst, {kind}: scans/s beside naive", rate, naive_rate, "/s",
                rate / naive_rate, "× faster", None if real else Target(5, "×", least=True),
                {"peak MB": sum(peaks.values()), "naive's": sum(naive_peaks.values())},
            ),
            Figure(
                part, f"burst, {kind}: CPU per scan beside naive", cpu * 1000, naive_cpu * 1000,
                "ms", naive_cpu / cpu, "× less",
                told={
                    name: f"{median(t.cpu_s[name] / t.scans for t in turns) * 1000:.1f} ms"
                    for name in turns[0].cpu_s
                },
            ),
            Figure(
                part, f"burst, {kind}: CPU per scan beside pure rendering", cpu * 1000,
                pure.all_s * 1000, "ms", cpu / pure.all_s,
            ),
            Figure(
                part, f"burst, {kind}: overhead beside the bare PDF floor",
                (cpu - pure.all_s) * 1000, pure.floor_s * 1000, "ms",
                (cpu - pure.all_s) / pure.floor_s, target=None if real else Target(1.5),
                told={"slowest format": f"{pure.slowest_s * 1000:.1f} ms"},
            ),
        ]  # fmt: skip
        if paced:
            calm = ours.run(_scans("paced", paced, real=real), 1 / (rate * PACE))
            count = max(8, int(paced * naive_rate / rate))
            naive_calm = naive.run(_scans("naive paced", count, real=real), 1 / (naive_rate * PACE))
            figures += _paced_figures(part, kind, calm, naive_calm, pure.slowest_s, real=real)
    return figures


def _paced_figures(
    part: str, kind: str, calm: Turn, naive: Turn, slowest_s: float, *, real: bool
) -> list[Figure]:
    at = f"paced at {PACE:.0%}, {kind}: p95 to last"
    ours, theirs = quantile(calm.files, 0.95), quantile(naive.files, 0.95)
    sends, their_sends = quantile(calm.sends, 0.95), quantile(naive.sends, 0.95)
    spread = {f"p{q:.0f}": f"{quantile(calm.files, q / 100) * 1000:.0f} ms" for q in (50, 99)}
    sent = {f"p{q:.0f}": f"{quantile(calm.sends, q / 100) * 1000:.0f} ms" for q in (50, 99)}
    return [
        Figure(part, f"{at} artifact beside naive", ours * 1000, theirs * 1000, "ms",
               ours / theirs, target=None if real else Target(0.15), told=spread),
        Figure(part, f"{at} artifact beside the slowest format", ours * 1000, slowest_s * 1000,
               "ms", ours / slowest_s, target=None if real else Target(4)),
        Figure(part, f"{at} delivery beside naive", sends * 1000, their_sends * 1000, "ms",
               sends / their_sends, told=sent),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pure:
    """CPU seconds a scan: all formats, the slowest one, and the bare PDF floor."""

    all_s: float
    slowest_s: float
    floor_s: float


def time_pure(scans: Sequence[bytes]) -> Pure:
    """What rendering the same Reports takes, and nothing else.  For a fresh process."""
    made = [assess_scan(scan) for scan in scans]
    bare = [(summarise(report), eight_columns(report)) for report in made]
    for name in DEFAULT_FORMATS:
        render(made[0], name)
    draw_pdf(*bare[0])
    taken: dict[Format, float] = {}
    for name in DEFAULT_FORMATS:
        began = time.process_time()
        for report in made:
            render(report, name)
        taken[name] = (time.process_time() - began) / len(made)
    began = time.process_time()
    for summary, table in bare:
        draw_pdf(summary, table)
    floor = (time.process_time() - began) / len(made)
    return Pure(sum(taken.values()), max(taken.values()), floor)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _contestants(stack: ExitStack, arrivals: Sink, hooks: int) -> tuple[Ours, Naive]:
    address = f"127.0.0.1:{arrivals.port}"
    made = stack.enter_context(service(allow=address))
    paths = [f"/ours-{number}" for number in range(hooks)]
    made.subscribe({path[1:]: f"http://{address}{path}" for path in paths})
    made.start_parts()
    other = stack.enter_context(service())
    naive_paths = [f"/naive-{number}" for number in range(hooks)]
    environment = {
        **other.environment,
        "NAIVE_REDIS": other.url,
        "NAIVE_FOLDER": str(other.folder / "naive"),
        "NAIVE_HOOKS": " ".join(f"http://{address}{path}" for path in naive_paths),
    }
    python = [sys.executable, "-m"]
    worker = [*python, "celery", "-A", "benchmarks.naive", "worker", "-c", "2", "-l", "ERROR"]
    for name, command in (("worker", worker), ("listener", [*python, "benchmarks.naive"])):
        other.start(Part(name, command, _with_path(environment), other.folder / f"{name}.log"))
    return Ours(made, arrivals, paths, "ours"), Naive(other, arrivals, naive_paths, "naive")


def _with_path(environment: dict[str, str]) -> dict[str, str]:
    import os

    return {**os.environ, **environment}


def _scans(name: str, count: int, *, real: bool) -> list[bytes]:
    if not real:
        return [make_scan(f"{name} {number}", COOKIES) for number in range(count)]
    made: list[bytes] = []
    while len(made) < count:
        made += real_scans(f"{name} {len(made)}")
    return made[:count]


def _seconds(moment: Any) -> float:
    from datetime import UTC, datetime

    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return float((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
