"""A soak: steady load, random kills of everything, then the accounts.

The first minute is calm: at its end every role's memory is taken.  Then a random
process of the service gets ``kill -9`` every few seconds, until the last minute,
which is calm again, so that every process has the age of the ones that were
measured first.  At the end nothing may be lost, each delivery has one effect,
``scanherald audit`` is clean, and each role's memory is within 15 % of what it
was after the first minute.  A role is the listener, the worker, the largest of
its pool, beat or the server.

    python -m tests.faults.soak --minutes 5 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import redis

from cli.sinks import HttpSink, MailSink
from cli.supervisor import Supervisor
from store.ledger import Ledger
from store.runs import count_runs
from tests.conftest import SCANS, Service
from tests.faults.conftest import QUICK, small_scans
from tests.faults.processes import children, memory_mb

CALM_S = 60.0
SHORTEST_MINUTES = 2.5
SCANS_PER_S = 3
KILL_EVERY_S = (1.5, 5.0)
BAD_EVERY = 25
"""Every so many entries one is broken: it must end as a dead letter."""
GROWTH = 0.15
NOISE_MB = 3.0
"""What an allocator gives and takes by itself in a small process."""


class Soak:
    """One soak of a service that runs."""

    def __init__(self, service: Service, seed: int) -> None:
        self.service = service
        self.chance = random.Random(seed)
        self.real = [orjson.loads(path.read_bytes()) for path in sorted(SCANS.glob("*.json"))]
        self.sound = self.bad = 0
        self.kills: Counter[str] = Counter()
        self._deck: list[str] = []

    def publish_next(self) -> None:
        """One entry, again and again while the server is away: a repeat is harmless."""
        number = self.sound + self.bad + 1
        if number % BAD_EVERY == 0:
            self.bad += 1
            fields: dict[str, Any] = {"data": b"{broken", "number": str(number)}
        else:
            self.sound += 1
            fields = self._scan(number)
        give_up = time.monotonic() + 30
        while True:
            try:
                self.service.publish(fields)
                return
            except redis.RedisError:
                if time.monotonic() > give_up:
                    raise
                self.service.supervisor.tend()
                time.sleep(0.1)

    def _scan(self, number: int) -> dict[str, bytes]:
        if number % 3:
            return small_scans(1, first=number)[0]
        scan = self.real[number // 3 % len(self.real)]
        return {"data": orjson.dumps(scan | {"scan_id": str(uuid.UUID(int=number))})}

    def kill_something(self) -> None:
        """One process, or the worker with its whole pool; each once before any one again."""
        if not self._deck:
            self._deck = ["listener", "worker", "worker+pool", "pool", "beat", "valkey"]
            self.chance.shuffle(self._deck)
        role = self._deck.pop()
        pid = self.service.supervisor.pid("worker" if role in ("pool", "worker+pool") else role)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if role == "worker+pool":
                os.killpg(pid, signal.SIGKILL)
            elif role == "pool":
                pool = children(pid)
                if not pool:
                    return
                os.kill(self.chance.choice(pool), signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
            self.kills[role] += 1

    def memory(self) -> dict[str, float]:
        """Resident MB by role, of those that run just now."""
        found: dict[str, float] = {}
        for role in ("listener", "worker", "beat", "valkey"):
            pid = self.service.supervisor.pid(role)
            if pid is not None:
                found[role] = rss_mb(pid)
        worker = self.service.supervisor.pid("worker")
        if worker is not None:
            found["pool"] = max((rss_mb(pid) for pid in children(worker)), default=0.0)
        return found

    def run(self, minutes: float) -> dict[str, float]:
        """Load and kills; returns the memory after the first minute."""
        began = time.monotonic()
        calm_until, end = began + CALM_S, began + minutes * 60
        next_publish = began
        next_kill = calm_until
        next_word = began + 10
        first: dict[str, float] = {}
        while (now := time.monotonic()) < end:
            self.service.supervisor.tend()
            if now >= next_publish:
                next_publish += 1 / SCANS_PER_S
                self.publish_next()
            if now >= calm_until and not first:
                first = self.memory()
            if calm_until <= now < end - CALM_S and now >= next_kill:
                next_kill = now + self.chance.uniform(*KILL_EVERY_S)
                self.kill_something()
            if now >= next_word:
                next_word += 10
                self._say(now - began)
            time.sleep(0.02)
        return first

    def _say(self, seconds: float) -> None:
        states = self.service.rows(count_runs)
        memory = " ".join(f"{role} {size:.0f}" for role, size in self.memory().items())
        print(
            f"{seconds:5.0f} s  published {self.sound + self.bad}  runs {dict(states)}  "
            f"kills {self.kills.total()}  MB: {memory}",
            flush=True,
        )


def rss_mb(pid: int) -> float:
    """A process's resident memory; 0 if it has just gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):
        return memory_mb(pid, "VmRSS")  # a dead one that nobody has waited for has none
    return 0.0


def judge(soak: Soak, first: dict[str, float], last: dict[str, float]) -> list[str]:
    """What is wrong, one line each."""
    service, wrong = soak.service, []
    states = dict(service.rows(count_runs))
    if states != {"done": soak.sound}:
        wrong.append(f"{soak.sound} scans were published, the runs are {states}")
    if (letters := len(service.dead_letters())) != soak.bad:
        wrong.append(f"{soak.bad} broken entries were published, {letters} are dead letters")
    if len(service.deliveries()) < soak.sound:
        wrong.append("not every run had something to tell")
    planned = {row["delivery_id"]: row["state"] for row in service.deliveries()}
    if unsent := Counter(state for state in planned.values() if state != "sent"):
        wrong.append(f"deliveries that are not sent: {dict(unsent)}")
    arrived = {request.headers["webhook-id"] for request in service.sink.requests}
    if arrived != set(planned):
        wrong.append(f"{len(planned)} deliveries, {len(arrived)} of their ids arrived")
    audit = service.scanherald("audit", "--json")
    if audit.returncode != 0:
        wrong.append(f"audit: {audit.stdout[-2000:]} {audit.stderr[-500:]}")
    for role, before in first.items():
        after = last.get(role, 0.0)
        if abs(after - before) > max(GROWTH * before, NOISE_MB):
            wrong.append(f"{role}: {before:.1f} MB after the first minute, {after:.1f} at the end")
    return wrong


def main() -> int:
    """Exit status 0 if every promise held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options = parser.parse_args()
    if options.minutes * 60 < 2 * CALM_S + 20:
        parser.error(
            f"--minutes must be {(2 * CALM_S + 20) / 60:.2f} or more: two of them are calm"
        )
    print(f"soak of {options.minutes} minutes, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, MailSink() as mails, HttpSink() as sink:
        service = Service(Path(folder), mails, sink)
        service.supervisor = Supervisor(longest_pause_s=0.5)
        service.environment |= QUICK | {
            "SCANHERALD_STREAM_RETENTION_S": "5",
            "SCANHERALD_HOUSEKEEPING_S": "5",
            "SCANHERALD_LOG_LEVEL": "WARNING",
        }
        Ledger(service.settings.ledger_url).migrate()
        try:
            service.start()
            service.subscribe()
            soak = Soak(service, options.seed)
            first = soak.run(options.minutes)
            last = soak.memory()
            began = time.monotonic()
            give_up = began + 120
            while not service.settled(soak.sound) and time.monotonic() < give_up:
                service.supervisor.tend()
                time.sleep(0.2)
            drained_s = time.monotonic() - began
            wrong = judge(soak, first, last)
            sends = len(sink.requests)
            ids = len({request.headers["webhook-id"] for request in sink.requests})
            line = {
                "test": "soak",
                "minutes": options.minutes,
                "seed": options.seed,
                "faults": soak.kills.total(),
                "kills": dict(soak.kills),
                "events": soak.sound + soak.bad,
                "lost": soak.sound - dict(service.rows(count_runs)).get("done", 0),
                "effects": ids,
                "duplicates": sends - ids,
                "recovery_s": round(drained_s, 1),
                "rss_mb": {
                    role: [round(first[role], 1), round(last.get(role, 0.0), 1)] for role in first
                },
            }
            print(json.dumps(line))
            for problem in wrong:
                print("WRONG:", problem)
            if wrong:
                print(service.last_words()[-6000:])
            return 1 if wrong else 0
        finally:
            service.supervisor.stop()


if __name__ == "__main__":
    raise SystemExit(main())
