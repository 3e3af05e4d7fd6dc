"""What follows a failed try: decided from the error and the try's number alone."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import ChannelUnavailable, DeliveryRejected, RateLimited
from schemas.settings import load_settings
from tasks.retry import LONGEST_WAIT_S, GiveUp, TryAgain, decide, fast_delay, last_number

BROKEN = ChannelUnavailable("broken")


@pytest.fixture
def settings(clean_environment: None) -> Any:
    return load_settings(
        task_max_retries=3, retry_max_s=60, delivery_schedule_s="300,1800", data_dir="unused"
    )


def one() -> float:
    return 1.0


def test_a_permanent_error_ends_it_at_the_first_try(settings: Any) -> None:
    assert decide(DeliveryRejected("gone"), 1, settings, one) == GiveUp()


@pytest.mark.parametrize(("number", "ceiling"), [(1, 1.0), (2, 2.0), (3, 4.0)])
def test_fast_retries_double_under_full_jitter(settings: Any, number: int, ceiling: float) -> None:
    assert decide(BROKEN, number, settings, one) == TryAgain(ceiling, soon=True)
    assert decide(BROKEN, number, settings, lambda: 0.25) == TryAgain(ceiling / 4, soon=True)
    assert decide(BROKEN, number, settings, lambda: 0.0) == TryAgain(0.0, soon=True)


def test_a_fast_delay_never_exceeds_its_bound(settings: Any) -> None:
    assert fast_delay(BROKEN, 50, settings, one) == 60.0


def test_what_the_other_side_asks_is_honoured_without_jitter(settings: Any) -> None:
    assert decide(RateLimited("slow", 7.0), 1, settings, lambda: 0.0) == TryAgain(7.0, soon=True)


def test_a_negative_wait_is_none(settings: Any) -> None:
    assert fast_delay(RateLimited("slow", -5.0), 1, settings, one) == 0.0


def test_a_wait_beyond_the_bound_of_fast_retries_goes_to_the_ledger(settings: Any) -> None:
    assert decide(RateLimited("slow", 61.0), 1, settings, one) == TryAgain(61.0, soon=False)


def test_the_long_schedule_follows_the_fast_retries_and_then_the_end(settings: Any) -> None:
    assert [decide(BROKEN, number, settings, one) for number in (4, 5, 6)] == [
        TryAgain(300.0, soon=False),
        TryAgain(1800.0, soon=False),
        GiveUp(),
    ]
    assert last_number(settings) == 6


def test_a_longer_wait_that_was_asked_for_stretches_the_schedule(settings: Any) -> None:
    assert decide(RateLimited("slow", 900.0), 4, settings, one) == TryAgain(900.0, soon=False)
    assert decide(RateLimited("slow", 900.0), 5, settings, one) == TryAgain(1800.0, soon=False)


def test_however_long_we_are_sent_away_we_look_again_after_a_day(settings: Any) -> None:
    for number in (1, 4):
        asked = decide(RateLimited("slow", 1e9), number, settings, one)
        assert asked == TryAgain(LONGEST_WAIT_S, soon=False)


def test_without_fast_retries_and_schedule_one_try_is_all(clean_environment: None) -> None:
    strict = load_settings(task_max_retries=0, delivery_schedule_s="", data_dir="unused")
    assert decide(BROKEN, 1, strict, one) == GiveUp()
    assert last_number(strict) == 1


def test_the_default_schedule_is_that_of_svix_after_its_first_step(clean_environment: None) -> None:
    """Svix: at once, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h; ours: three fast tries for 5 s."""
    settings = load_settings(data_dir="unused")
    delays = [decide(BROKEN, number, settings, one) for number in range(1, 11)]
    assert delays == [
        *(TryAgain(seconds, soon=True) for seconds in (1.0, 2.0, 4.0)),
        *(TryAgain(60.0 * minutes, soon=False) for minutes in (5, 30, 120, 300, 600, 600)),
        GiveUp(),
    ]
