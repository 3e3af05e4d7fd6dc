"""Two beats on one ledger: each tick is one beat's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.schedules import crontab, schedule
from kombu.utils.imports import symbol_by_name

from schemas.errors import LedgerUnavailable
from tasks import app
from tasks.ticks import LedgerScheduler

HOUR = 3600


@pytest.fixture
def beat(parts: Any, broker: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], LedgerScheduler]:
    """One more beat with a chore every hour and one every night at three, on the test's clock."""

    def beat() -> LedgerScheduler:
        clock = parts.clock
        chores = {
            "hourly": {"task": "x", "schedule": schedule(HOUR, nowfun=clock)},
            "nightly": {"task": "y", "schedule": crontab(minute="0", hour="3", nowfun=clock)},
        }
        monkeypatch.setitem(app.conf, "beat_schedule", chores)
        return LedgerScheduler(app)

    return beat


def due(scheduler: LedgerScheduler, name: str = "hourly") -> bool:
    """Whether a beat starts a chore now; it does what follows."""
    entry = scheduler.schedule[name]
    if not scheduler.is_due(entry)[0]:
        return False
    scheduler.reserve(entry)
    return True


def test_of_two_beats_one_starts_a_chore_and_the_other_takes_over_its_time(
    beat: Any, clock: Any
) -> None:
    one, two = beat(), beat()
    assert not due(one)
    clock.forward(HOUR)
    assert (due(one), due(two)) == (True, False)
    clock.forward(HOUR - 1)
    assert (due(two), due(one)) == (False, False)
    clock.forward(1)
    assert (due(two), due(one)) == (True, False)


def test_the_other_beat_is_told_when_to_look_again(beat: Any, clock: Any) -> None:
    one, two = beat(), beat()
    clock.forward(HOUR)
    assert due(one)
    clock.forward(60)
    is_due, wait = two.is_due(two.schedule["hourly"])
    assert (is_due, wait) == (False, HOUR - 60)


def test_a_beat_that_is_left_alone_goes_on(beat: Any, clock: Any) -> None:
    one, two = beat(), beat()
    for _ in range(3):
        clock.forward(HOUR)
        assert due(one)
    clock.forward(HOUR)
    assert due(two)


def test_what_was_due_while_no_beat_ran_is_started_once(beat: Any, clock: Any) -> None:
    beat()
    clock.forward(48 * HOUR)
    one, two = beat(), beat()
    assert [due(one, "nightly"), due(two, "nightly"), due(one, "nightly")] == [True, False, False]
    assert [due(one), due(two)] == [True, False]


def test_a_night_is_one_beats_though_their_clocks_differ(beat: Any, clock: Any) -> None:
    one, two = beat(), beat()
    clock.now = datetime(2026, 3, 5, 3, 0, 0, tzinfo=UTC)
    assert due(one, "nightly")
    clock.forward(20)
    assert not due(two, "nightly")
    clock.now += timedelta(days=1)
    assert due(two, "nightly")


def test_a_chore_never_heard_of_waits_its_first_interval(beat: Any, clock: Any) -> None:
    assert not due(beat())
    clock.forward(HOUR - 1)
    assert not due(beat())
    clock.forward(1)
    assert due(beat())


def test_a_tick_of_a_clock_that_was_wrong_stops_nothing(beat: Any, clock: Any) -> None:
    one = beat()
    clock.forward(1000 * HOUR)
    assert due(one)
    clock.forward(-999 * HOUR)
    two = beat()
    clock.forward(HOUR)
    assert due(two)


def test_a_ledger_that_is_away_lets_every_beat_tick(
    beat: Any, parts: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = beat(), beat()
    clock.forward(HOUR)

    def away() -> Any:
        raise LedgerUnavailable("ledger: restarting")

    with monkeypatch.context() as patched:
        patched.setattr(parts.ledger, "write", away)
        assert (due(one), due(two)) == (True, True)
        patched.setattr(parts.ledger, "migrate", away)
        assert not due(beat())  # a beat may start before its ledger
    clock.forward(HOUR)
    assert (due(one), due(two)) == (True, False)


def test_celery_itself_uses_it(parts: Any) -> None:
    assert issubclass(symbol_by_name(app.conf.beat_scheduler), LedgerScheduler)
