"""What to do after a failed try: a pure decision from the error and the try's number.

Fast retries first, exponential with full jitter, honouring what the other side
asked; then the long schedule, whose due times live in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from schemas.errors import PermanentError, TransientError
from schemas.settings import Settings

FIRST_DELAY_S = 1.0

LONGEST_WAIT_S = 86_400.0
"""However long a destination asks us to stay away, we look again after a day."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Another try in ``delay_s`` seconds.  ``soon``: by a message, else by the sweep."""

    delay_s: float
    soon: bool


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further try."""


def last_number(settings: Settings) -> int:
    """The number (from 1) of the last try that a delivery may be given."""
    return 1 + settings.task_max_retries + len(settings.delivery_schedule_s)


def longest_gap(settings: Settings) -> timedelta:
    """Failures of an address that are further apart are not one failure that lasts.

    A delivery's tries are never so far apart, unless whoever makes them was away for a day.
    """
    return timedelta(seconds=max(settings.delivery_schedule_s, default=0.0) + LONGEST_WAIT_S)


def fast_delay(
    error: TransientError, number: int, settings: Settings, jitter: Callable[[], float]
) -> float:
    """Seconds before the next fast try, after the ``number``-th one (from 1) failed."""
    if error.retry_after is not None:
        return min(max(0.0, error.retry_after), settings.retry_max_s)
    ceiling = min(settings.retry_max_s, FIRST_DELAY_S * 2.0 ** (number - 1))
    return ceiling * jitter()


def decide(
    error: PermanentError | TransientError,
    number: int,
    settings: Settings,
    jitter: Callable[[], float],
) -> TryAgain | GiveUp:
    """What follows the failed try ``number`` (from 1) of a delivery."""
    if isinstance(error, PermanentError):
        return GiveUp()
    asked = min(error.retry_after or 0.0, LONGEST_WAIT_S)
    if number <= settings.task_max_retries:
        if asked > settings.retry_max_s:
            return TryAgain(asked, soon=False)
        return TryAgain(fast_delay(error, number, settings, jitter), soon=True)
    step = number - settings.task_max_retries - 1
    if step < len(settings.delivery_schedule_s):
        return TryAgain(max(asked, settings.delivery_schedule_s[step]), soon=False)
    return GiveUp()
