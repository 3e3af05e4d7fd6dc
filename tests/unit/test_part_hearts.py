"""The hearts of a worker and of beat: their loops beat, whatever Celery waits for."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.beat import Scheduler
from celery.concurrency.solo import TaskPool as SoloPool
from celery.events.dispatcher import EventDispatcher
from celery.signals import task_postrun, task_prerun, worker_shutting_down
from celery.worker.consumer import Consumer

from store.heartbeats import HOLDS_S
from tasks import worker_heart
from tasks.app import app
from tasks.beat_heart import TICK_S, BeatingScheduler
from tasks.worker_heart import BeatingConsumer


class Journal:
    """A heart that remembers."""

    def __init__(self) -> None:
        self.beats: list[tuple[str | None, float]] = []
        self.is_stopped = False

    def beat(self, waits_for: str | None = None, holds_s: float = HOLDS_S) -> None:
        self.beats.append((waits_for, holds_s))

    def stop(self) -> None:
        self.is_stopped = True


@pytest.fixture
def heart(monkeypatch: pytest.MonkeyPatch) -> Journal:
    journal = Journal()
    monkeypatch.setattr(worker_heart, "_heart", lambda: journal)
    return journal


@pytest.fixture
def signals() -> Iterator[None]:
    """Whatever a consumer connects is let go of again."""
    kept = [(signal, list(signal.receivers)) for signal in (task_prerun, task_postrun)]
    yield
    for signal, receivers in kept:
        signal.receivers[:] = receivers
        signal.sender_receivers_cache.clear() if signal.use_caching else None
    worker_shutting_down.disconnect(worker_heart._stopping)


def consumer(monkeypatch: pytest.MonkeyPatch, hub: Any, pool: Any) -> Any:
    """A consumer without what Celery builds around it."""

    def build(self: Any) -> None:
        self.hub, self.pool, self.timer = hub, pool, Timer()

    monkeypatch.setattr(Consumer, "__init__", build)
    return BeatingConsumer()


class Timer:
    """The loop's own timer: a test turns it."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, Any]] = []

    def call_repeatedly(self, seconds: float, call: Any) -> None:
        self.entries.append((seconds, call))


def test_the_app_uses_both(parts: Any, broker: Any) -> None:
    assert broker.conf.worker_consumer == "tasks.worker_heart:BeatingConsumer"
    assert broker.conf.beat_scheduler == "tasks.beat_heart:BeatingScheduler"
    assert broker.conf.beat_max_loop_interval == TICK_S < HOLDS_S


def test_the_loop_beats_by_its_own_timer(
    heart: Journal, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = consumer(monkeypatch, hub=object(), pool=object())
    assert heart.beats == []  # a SIGTERM would leave its file behind
    ((seconds, turn),) = made.timer.entries
    assert seconds <= 1.0
    turn()
    assert heart.beats == [(None, HOLDS_S)]


def test_without_an_event_loop_no_timer_thread_beats_for_a_loop_that_hangs(
    heart: Journal, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = consumer(monkeypatch, hub=None, pool=object())
    assert made.timer.entries == []
    monkeypatch.setattr(Consumer, "perform_pending_operations", lambda _: None)
    made.perform_pending_operations()
    assert len(heart.beats) == 1


def test_a_worker_that_waits_for_its_broker_beats(
    heart: Journal, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    class Connection:
        def ensure_connection(self, errback: Any, retries: Any, callback: Any) -> Any:
            for _ in range(3):
                callback()
            return "connected"

    def as_celery_does(_: Any, connection: Any) -> Any:
        return connection.ensure_connection(None, None, callback=lambda: looked.append("stop?"))

    made = consumer(monkeypatch, hub=object(), pool=object())
    monkeypatch.setattr(Consumer, "ensure_connected", as_celery_does)
    assert made.ensure_connected(Connection()) == "connected"
    assert heart.beats == [("the broker", HOLDS_S)] * 4
    assert len(looked) == 3


def test_letting_go_of_a_broken_connection_takes_long_and_is_no_hang(
    heart: Journal, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = consumer(monkeypatch, hub=object(), pool=object())
    monkeypatch.setattr(Consumer, "on_connection_error_after_connected", lambda *_: None)
    monkeypatch.setattr(Consumer, "on_close", lambda _: None)
    made.on_connection_error_after_connected(ConnectionError("away"))
    made.on_close()
    assert heart.beats == [("the broker", HOLDS_S)] * 3


def test_a_solo_worker_is_away_for_a_task_at_most(
    parts: Any, heart: Journal, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer(monkeypatch, hub=object(), pool=SoloPool.__new__(SoloPool))
    task_prerun.send(sender=None, task_id="t", task=SimpleNamespace())
    assert heart.beats[-1] == (None, 300 + HOLDS_S)
    task_postrun.send(sender=None, task_id="t", task=SimpleNamespace())
    assert heart.beats[-1] == (None, HOLDS_S)


def test_a_worker_that_finishes_its_tasks_is_not_hung(
    parts: Any, heart: Journal, signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer(monkeypatch, hub=object(), pool=object())
    worker_shutting_down.send(sender="worker@one", sig="TERM", how="Warm", exitcode=0)
    assert heart.beats[-1] == ("the end of its tasks", 300 + HOLDS_S)


def test_no_worker_waits_for_an_event_to_be_sent(parts: Any, broker: Any) -> None:
    tried: list[bool] = []

    class Producer:
        def publish(self, *_: Any, retry: bool, **__: Any) -> None:
            tried.append(retry)
            raise ConnectionError("away")

    dispatcher = app.events.Dispatcher(None, enabled=False)
    assert isinstance(dispatcher, EventDispatcher)
    dispatcher.enabled, dispatcher.producer = True, Producer()
    dispatcher.send("worker-heartbeat", retry=True)
    assert tried == [False]
    assert len(dispatcher._outbound_buffer) == 1


# Beat


@pytest.fixture
def scheduler(
    parts: Any, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BeatingScheduler]:
    before = broker.conf.task_publish_retry_policy
    made = BeatingScheduler(app=broker)
    made.__dict__["heart"] = Journal()
    yield made
    if not made.heart.is_stopped:
        made.close()
    broker.conf.task_publish_retry_policy = before


def test_every_tick_is_a_beat(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "tick", lambda _: 7.0)
    assert scheduler.tick() == 7.0
    assert scheduler.heart.beats == [(None, HOLDS_S)]


def test_a_tick_beats_again_between_the_ledgers_answer_and_the_brokers(
    scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scheduler, "apply_entry", lambda *_, **__: None)
    scheduler.apply_entry(object(), producer=None)
    assert scheduler.heart.beats == [(None, HOLDS_S)]


def test_beat_publishes_with_one_retry(scheduler: Any) -> None:
    assert scheduler.app.conf.task_publish_retry_policy["max_retries"] == 1


def test_beat_that_waits_for_its_broker_beats(
    scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(*_: Any, callback: Any) -> str:
        callback()
        return "connected"

    scheduler.connection.ensure_connection = waits
    assert scheduler._ensure_connected() == "connected"
    assert scheduler.heart.beats == [("the broker", HOLDS_S)]


def test_a_beat_that_stops_is_not_missed(scheduler: Any) -> None:
    scheduler.close()
    assert scheduler.heart.is_stopped


def test_a_scheduler_that_never_ticks_has_no_heart(parts: Any, broker: Any) -> None:
    lazy = BeatingScheduler(app=broker, lazy=True)
    lazy.close()
    assert not parts.settings.heartbeat_folder.exists()
