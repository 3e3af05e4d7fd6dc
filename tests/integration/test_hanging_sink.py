"""A receiver that accepts and never answers, beside five hundred deliveries to others."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from channels.signing import new_secret
from cli.embedded import service_parts, valkey_part, wait_for_redis
from cli.sinks import HttpSink, SinkAnswer, SunkRequest
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Notification, Subscriber
from schemas.reports import Severity
from store.deliveries import Recipient, plan_deliveries, save_notification
from store.subscribers import save_subscriber
from tasks.wiring import Wiring, utc_now, wire

WELL, OTHERS, HANGING = 10, 500, 100
LATENCY_S = 0.05
"""How long a receiver that is well takes to answer."""
HANG_TIMEOUT_S = 10.0
"""The default of SCANHERALD_HTTP_TIMEOUT_S."""


class Sinks:
    """Receivers that are well, and one that hangs; they remember when each message came."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.arrivals: list[tuple[float, str]] = []
        self.well = [stack.enter_context(HttpSink(answer=self._well)) for _ in range(WELL)]
        self.hanging = stack.enter_context(HttpSink(answer=self._hang))

    def _well(self, request: SunkRequest) -> SinkAnswer:
        self.arrivals.append((time.monotonic(), request.headers["webhook-id"]))
        return SinkAnswer(delay_s=LATENCY_S)

    def _hang(self, request: SunkRequest) -> SinkAnswer:
        return SinkAnswer(delay_s=3600)

    def names(self) -> dict[str, str]:
        """Subscriber by subscriber, where each is reached."""
        return {f"well-{number}": sink.url for number, sink in enumerate(self.well)} | {
            "hanging": self.hanging.url
        }


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    with contextlib.ExitStack() as stack:
        yield Sinks(stack)


@pytest.fixture
def parts(service: Any, sinks: Sinks) -> Iterator[Wiring]:
    """This process's hands on the service's ledger; the pace is the default one."""
    for name in ("DESTINATION_PER_S", "SLACK_PER_S", "SUBSCRIBER_PER_MIN"):
        del service.environment[f"SCANHERALD_{name}"]
    allowed = ",".join(url.removeprefix("http://") for url in sinks.names().values())
    service.environment["SCANHERALD_HTTP_ALLOW"] = allowed
    made = wire(service.settings)
    with made.ledger.write() as connection:
        for name, url in sinks.names().items():
            address = ChannelAddress(
                kind=ChannelKind.WEBHOOK,
                target=f"{url}/{name}",
                secret=new_secret(lambda size: b"s" * size),
            )
            subscriber = Subscriber(subscriber_id=name, channels=(address,))
            save_subscriber(connection, subscriber, made.box, utc_now())
    yield made
    made.close()


def start(service: Any, *options: str) -> None:
    """Valkey, a worker with these options, and beat."""
    logs = service.folder / "logs"
    logs.mkdir(exist_ok=True)
    service.supervisor.start(
        valkey_part(service.port, service.folder / "valkey", logs / "valkey.log")
    )
    wait_for_redis(service.environment["REDIS_URL"])
    worker, beat, _ = service_parts(service.environment, 2, logs)
    service.supervisor.start(replace(worker, command=[*worker.command, *options]))
    service.supervisor.start(beat)


def plan(parts: Wiring, round_name: str, names: list[str]) -> None:
    """One delivery for each name, in this order, all due and started by nobody."""
    now = utc_now() - timedelta(minutes=5)
    with parts.ledger.write() as connection:
        for number, name in enumerate(names):
            told = Notification(
                event_key=f"{round_name}:{number}",
                type=EventType.SCAN_FAILED,
                occurred_at=now,
                domain="shop.example",
                scan_id=None,
                severity=Severity.INFO,
                title="told",
                summary="",
            )
            save_notification(connection, told, None, now)
            plan_deliveries(
                connection,
                told.event_key,
                [Recipient(name, ChannelAddress(kind=ChannelKind.WEBHOOK, target="theirs"))],
                now=now + timedelta(milliseconds=number),
                started_by=now,
                new_id=lambda: str(uuid4()),
                box=parts.box,
            )


def seconds_of(service: Any, sinks: Sinks) -> float:
    """Wait for five hundred more messages at the others, and say how long they took."""
    before = len(sinks.arrivals)
    service.wait(lambda: len(sinks.arrivals) >= before + OTHERS, timeout_s=90)
    ours = [moment for moment, _ in sinks.arrivals[before:]]
    return max(ours) - min(ours)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options",
    [("--concurrency", "2"), ("--concurrency", "8", "--pool", "threads")],
    ids=["two processes", "eight threads"],
)
def test_a_receiver_that_hangs_does_not_slow_the_others(
    service: Any, sinks: Sinks, parts: Wiring, options: tuple[str, ...]
) -> None:
    others = [f"well-{number % WELL}" for number in range(OTHERS)]
    mixed: list[str] = []
    for number, name in enumerate(others):
        mixed += ["hanging", name] if number % (OTHERS // HANGING) == 0 else [name]
    assert mixed.count("hanging") == HANGING
    start(service, *options)

    plan(parts, "alone", others)
    alone = seconds_of(service, sinks)
    plan(parts, "mixed", mixed)
    beside = seconds_of(service, sinks)

    print(f"{OTHERS} deliveries: {alone:.1f} s alone, {beside:.1f} s beside a sink that hangs")
    print(f"sends that hung meanwhile: {len(sinks.hanging.requests)}")
    assert beside <= 1.5 * alone
    assert 1 <= len(sinks.hanging.requests) <= 1 + beside / HANG_TIMEOUT_S
    service.wait(
        lambda: all(
            row["state"] == "sent"
            for row in service.deliveries()
            if row["subscriber_id"] != "hanging"
        )
    )
    times = Counter(message_id for _, message_id in sinks.arrivals)
    assert set(times.values()) == {1}, "each exactly once"
    assert len(times) == 2 * OTHERS
    waiting = [row for row in service.deliveries() if row["subscriber_id"] == "hanging"]
    assert {row["state"] for row in waiting} <= {"pending", "sending"}
    assert sum(row["tries"] for row in waiting) == len(sinks.hanging.requests)
