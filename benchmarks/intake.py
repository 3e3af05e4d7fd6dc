"""The listener from XADD to recorded, acknowledged and dispatched, beside what each step must cost.

All take turns in one process on one server.  Nobody works on what is published:
the queues are emptied after each turn.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar
from unittest import mock

import structlog
from celery import Celery, chord

from benchmarks.figures import Figure
from benchmarks.render import Target
from benchmarks.service import STREAM, Service, make_scan, service
from benchmarks.usage import usage_of
from listener import consumer
from listener.consumer import Listener
from listener.decode import decode_batch
from listener.stream import EventStreams
from schemas.reports import DEFAULT_FORMATS
from schemas.runs import RunTicket
from tasks import wiring
from tasks.app import app as ours
from tasks.app import publish_only
from tasks.chords import dispatch
from tasks.heart import Heart

KINDS = {"1 KB": 2, "200 cookies": 200}
"""Events by their number of cookies."""
BATCH = 50
PATIENCE_S = 600.0
QUEUED = ("reports", "notifications", "default", "celery")

T = TypeVar("T")


@dataclass
class Contestant:
    """``turn`` takes so many events; what it took is kept, with the server's CPU."""

    turn: Callable[[int], object]
    cpu_s: list[float] = field(default_factory=list)
    server_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)

    def rate(self, count: int) -> float:
        """Events a second."""
        return count / median(self.wall_s)


def measure_intake(kind: str, *, rounds: int, count: int) -> list[Figure]:
    """Figures for one of ``KINDS``.  For a fresh process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with service(reports_high_water=1_000_000) as made:
        wiring.use(made.settings)
        publish_only()
        ours.conf.update(broker_url=made.url, result_backend=made.url)
        bench = Bench(made)
        contestants = {
            "listener": Contestant(bench.listen),
            "intake alone": Contestant(bench.take_in),
            "raw": Contestant(bench.read_raw),
            "celery": Contestant(bench.publish_chords),
            "by hand": Contestant(bench.publish_by_hand),
        }
        server = made.supervisor.pid("valkey") or 0
        for number in range(rounds + 1):  # the first one loads and connects
            bench.publish(f"{kind} {number}", count, KINDS[kind])
            for name, one in contestants.items():
                before, wall, cpu = usage_of(server).cpu_s, time.monotonic(), time.process_time()
                one.turn(count)
                if number:
                    one.cpu_s.append(time.process_time() - cpu)
                    one.wall_s.append(time.monotonic() - wall)
                    one.server_s.append(usage_of(server).cpu_s - before)
                elif name == "listener":
                    bench.stages.clear()
                bench.empty()
        bench.close()
    return _figures(kind, contestants, bench, rounds * count, count)


def _figures(
    kind: str, found: dict[str, Contestant], bench: Bench, events: int, count: int
) -> list[Figure]:
    part = f"intake, {kind}"
    rates = {name: one.rate(count) for name, one in found.items()}
    cpu = {
        name: median(map(sum, zip(one.cpu_s, one.server_s, strict=True))) / count * 1000
        for name, one in found.items()
    }
    stages = {name: f"{spent / events * 1000:.3f} ms" for name, spent in bench.stages.items()}

    def row(what: str, other: str, target: Target | None = None, name: str = "listener") -> Figure:
        return Figure(
            part,
            f"{what}: events/s",
            rates[name],
            rates[other],
            "/s",
            rates[name] / rates[other],
            target=target,
            told={"CPU per event": f"{cpu[name]:.3f} ms", "its": f"{cpu[other]:.3f} ms"},
        )

    return [
        row("listener beside Celery's default chord publish", "celery", Target(1.5, least=True)),
        row("intake alone beside XREADGROUP + XACK", "raw", Target(0.5, least=True),
            "intake alone"),
        row("listener beside XREADGROUP + XACK", "raw"),
        row("listener beside the same messages pushed by hand", "by hand"),
        Figure(part, "bytes queued per chord beside Celery's default", bench.bytes_ours / 1024,
               bench.bytes_celery / 1024, "KB", bench.bytes_ours / 1024, "KB", Target(8, "KB")),
        Figure(part, "CPU of the listener per event, by stage", cpu["listener"], None, "ms",
               told=stages),
    ]  # fmt: skip


class Bench:
    """Everybody's turn, on one server."""

    def __init__(self, made: Service) -> None:
        self.made = made
        self.client: Any = made.client()
        self.stages: Counter[str] = Counter()
        self.bytes_ours = self.bytes_celery = 0.0
        self.messages: list[tuple[str, bytes]] = []
        self.parts = wiring.current()
        self.dispatched = 0
        stop = threading.Event()
        self.streams = self._streams("scanherald")
        self.alone = self._streams("alone")
        self.raw = self._streams("raw")
        for streams in (self.streams, self.alone, self.raw):
            streams.ensure_groups()
        self.listener = Listener(
            self.streams,
            self.parts,
            self._dispatch,
            lambda: 0,
            stop,
            Heart("listener", made.settings),
        )
        self.celery = Celery("default", broker=f"{made.url[:-1]}1", backend=f"{made.url[:-1]}1")
        self.other: Any = made.client()
        self.other.connection_pool.connection_kwargs["db"] = 1
        self.head = self.celery.task(name="head")(_head)
        self.body = self.celery.task(name="body")(_body)

    def publish(self, name: str, count: int, cookies: int) -> None:
        """So many new entries for every group."""
        with self.client.pipeline(transaction=False) as pipe:
            for number in range(count):
                pipe.xadd(STREAM, {"data": make_scan(f"{name} {number}", cookies)})
            pipe.execute()

    def listen(self, count: int) -> None:
        """The listener's own loop until all are dispatched and acknowledged.

        Raises TimeoutError where some never are, such as dead letters.
        """
        wanted, give_up = self.dispatched + count, time.monotonic() + PATIENCE_S
        with self._timed():
            while self.dispatched < wanted:
                self.listener._turn()
                if time.monotonic() > give_up:
                    raise TimeoutError(f"{wanted - self.dispatched} of {count} not dispatched")
            self.listener._acknowledge()

    def take_in(self, count: int) -> None:
        """Read, decode, acknowledge."""
        taken, acks = 0, []
        while taken < count:
            acks = self.alone.read_new(BATCH, acks)
            decode_batch(acks, max_bytes=1 << 24)
            taken += len(acks)
        self.alone.ack(acks)

    def read_raw(self, count: int) -> None:
        """XREADGROUP and XACK in one pipeline, by the same client."""
        taken, ids = 0, []
        while taken < count:
            with self.client.pipeline(transaction=False) as pipe:
                if ids:
                    pipe.xack(STREAM, "raw", *ids)
                pipe.xreadgroup("raw", "one", {STREAM: ">"}, count=BATCH)
                entries = pipe.execute()[-1][0][1]
            ids = [entry_id for entry_id, _ in entries]
            taken += len(ids)
        self.client.xack(STREAM, "raw", *ids)

    def publish_chords(self, count: int) -> None:
        """Chords of references by Celery's default settings."""
        for number in range(count):
            header = [
                self.head.s(run_id=f"run {number}", attempt=1, formats=[name.value])
                for name in DEFAULT_FORMATS
            ]
            chord(header, app=self.celery)(self.body.s(run_id=f"run {number}", attempt=1))

    def publish_by_hand(self, count: int) -> None:
        """The messages that our last turn published, 50 chords to a pipeline."""
        each = len(self.messages) // count * BATCH
        for first in range(0, len(self.messages), each):
            with self.client.pipeline(transaction=False) as pipe:
                for key, message in self.messages[first : first + each]:
                    pipe.lpush(key, message)
                pipe.execute()

    def empty(self) -> None:
        """Weigh what was queued, and take it away."""
        found = [
            (key, m) for key in self._lists(self.client) for m in self.client.lrange(key, 0, -1)
        ]
        if self.dispatched and found:
            self.messages = found
            chords = len({_run_of(message) for _, message in found})
            self.bytes_ours = sum(len(message) for _, message in found) / max(1, chords)
        for key in self._lists(self.client):
            self.client.delete(key)
        theirs = self.other.lrange("celery", 0, -1)
        if theirs:
            self.bytes_celery = sum(map(len, theirs)) / (len(theirs) / len(DEFAULT_FORMATS))
        self.other.flushdb()

    def close(self) -> None:
        """Let go of connections."""
        self.listener._heart.stop()
        self.parts.close()
        self.celery.close()

    def _lists(self, client: Any) -> list[str]:
        names = [key.decode() for key in client.keys("*")]
        return [name for name in names if name.split("\x06")[0] in QUEUED]

    def _streams(self, group: str) -> EventStreams:
        return EventStreams(self.made.url, [STREAM], group, "one", block_ms=2000)

    def _dispatch(self, tickets: Iterable[RunTicket]) -> None:
        given = list(tickets)
        dispatch(given)
        self.dispatched += len(given)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        def timed(stage: str, work: Callable[..., T]) -> Callable[..., T]:
            def run(*args: Any, **kwargs: Any) -> T:
                began = time.process_time()
                try:
                    return work(*args, **kwargs)
                finally:
                    self.stages[stage] += time.process_time() - began

            return run

        began, before = time.process_time(), sum(self.stages.values())
        with (
            mock.patch.object(self.streams, "read_new", timed("read, ack", self.streams.read_new)),
            mock.patch.object(consumer, "decode_batch", timed("decode", decode_batch)),
            mock.patch.object(
                consumer.events, "record_batch",
                timed("record", consumer.events.record_batch),
            ),
            mock.patch.object(self.listener, "_dispatch", timed("dispatch", self._dispatch)),
            mock.patch.object(
                consumer.runs, "mark_dispatched",
                timed("mark", consumer.runs.mark_dispatched),
            ),
        ):  # fmt: skip
            yield
        known = sum(self.stages.values()) - before
        self.stages["commits and rest"] += time.process_time() - began - known


def _head(**_: object) -> None:
    """No-op."""


def _body(*_: object, **__: object) -> None:
    """No-op."""


def _run_of(message: bytes) -> bytes:
    """The run's id in a message of ours: the start of its task id."""
    place = message.index(b'"id": "') + 7
    return message[place : message.index(b":", place)]
