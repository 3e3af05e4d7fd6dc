"""When the listener stops reading, and when it asks."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from listener.backpressure import LOOK_EVERY_S, Backpressure
from schemas.errors import BrokerUnavailable


class Queue:
    """A queue whose depth a test sets; counts how often it was asked."""

    def __init__(self) -> None:
        self.depth: int | None = 0
        self.asked = 0
        self.now = 100.0

    def __call__(self) -> int:
        self.asked += 1
        if self.depth is None:
            raise BrokerUnavailable("broker: refused")
        return self.depth


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def gate(queue: Queue) -> Backpressure:
    return Backpressure(queue, high=100, low=20, monotonic=lambda: queue.now)


def test_it_closes_at_the_high_water_mark_and_opens_at_the_low_one(gate: Any, queue: Queue) -> None:
    answers = []
    for queue.depth in (99, 100, 99, 21, 20, 99, 101):
        queue.now += LOOK_EVERY_S
        answers.append(gate.closed())
    assert answers == [False, True, True, True, False, False, True]


def test_an_open_gate_asks_at_most_twice_a_second(gate: Any, queue: Queue) -> None:
    for _ in range(100):
        queue.now += LOOK_EVERY_S / 10
        assert not gate.closed()
    assert 9 <= queue.asked <= 11


def test_a_burst_is_looked_at_before_it_can_overshoot(gate: Any, queue: Queue) -> None:
    gate.closed()
    queue.depth = 1000
    gate.published(24)
    assert not gate.closed()
    gate.published(1)
    assert gate.closed()


def test_a_closed_gate_asks_every_time(gate: Any, queue: Queue) -> None:
    queue.depth = 100
    assert [gate.closed() for _ in range(3)] == [True] * 3
    queue.depth = 0
    assert not gate.closed()


def test_a_broker_that_cannot_be_asked_closes_and_it_is_said_once(gate: Any, queue: Queue) -> None:
    queue.depth = None
    with capture_logs() as logs:
        assert [gate.closed() for _ in range(3)] == [True] * 3
        queue.depth = 5
        assert not gate.closed()
    assert [line["event"] for line in logs] == ["intake_paused", "intake_resumed"]
    assert logs[0]["reason"] == "broker: refused"
