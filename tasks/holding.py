"""When a subscriber is told: at once, when their quiet time ends, or with the next digest.

Pure: preferences, a severity and the time go in, a ``Hold`` or None comes out.
The clock on the subscriber's wall decides.  Where it is put forward, the hour
that it skips is no hour; where it is put back, an hour that it shows twice
counts twice.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from schemas.errors import InvalidSettings
from schemas.notifications import Digest, DigestRhythm, HeldFor, Hold, QuietHours, Subscriber
from schemas.reports import Severity

PAUSED = "the subscriber is paused"
"""Why nothing is told at all."""

_CLOCK_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


def held_until(subscriber: Subscriber, severity: Severity, now: datetime) -> Hold | None:
    """How long news of this severity waits, and why; None: it is told at once."""
    digest = subscriber.digest
    if digest.rhythm is not DigestRhythm.IMMEDIATE and severity.rank < digest.below.rank:
        return _digest_hold(digest, subscriber.quiet_hours, severity, now)
    return quiet_until(subscriber.quiet_hours, severity, now)


def quiet_until(quiet_hours: QuietHours | None, severity: Severity, now: datetime) -> Hold | None:
    """The wait until the first moment outside the quiet hours; None: it is not quiet now."""
    if quiet_hours is None or passes(quiet_hours, severity) or not is_quiet(quiet_hours, now):
        return None
    return Hold(
        until=first_outside(quiet_hours, now),
        held_for=HeldFor.QUIET_HOURS,
        reason=f"quiet hours {quiet_hours.start}-{quiet_hours.end} {quiet_hours.time_zone}",
    )


def passes(quiet_hours: QuietHours, severity: Severity) -> bool:
    """Whether news of this severity is told in quiet hours too."""
    return quiet_hours.passing is not None and severity.rank >= quiet_hours.passing.rank


def is_quiet(quiet_hours: QuietHours, moment: datetime) -> bool:
    """Whether the wall clock shows a time from ``start`` to before ``end``; never if they equal."""
    shown = moment.astimezone(zone(quiet_hours.time_zone)).time()
    start, end = clock_time(quiet_hours.start), clock_time(quiet_hours.end)
    if start <= end:
        return start <= shown < end
    return shown >= start or shown < end


def first_outside(quiet_hours: QuietHours, moment: datetime) -> datetime:
    """The first moment, not before this one, that is outside the quiet hours, in UTC."""
    here = zone(quiet_hours.time_zone)
    end = clock_time(quiet_hours.end)
    moment = moment.astimezone(UTC)
    while is_quiet(quiet_hours, moment):
        shown = moment.astimezone(here).replace(tzinfo=None)
        ahead = datetime.combine(shown.date(), end)
        if ahead <= shown:
            ahead += _DAY
        end_of_quiet = moment + (ahead - shown)  # right as long as the clock is not changed
        moment = _clock_change(here, moment, end_of_quiet) or end_of_quiet
    return moment


def next_digest(digest: Digest, now: datetime) -> datetime:
    """When the digest that is collected now goes out, in UTC; always after ``now``.

    Hourly: when the wall clock shows a full hour.  Daily: at its time, the first
    where the clock shows it twice, an hour later where the clock skips it.
    """
    here = zone(digest.time_zone)
    shown = now.astimezone(here)
    if digest.rhythm is DigestRhythm.HOURLY:
        past = timedelta(minutes=shown.minute, seconds=shown.second, microseconds=shown.microsecond)
        return now.astimezone(UTC) + _HOUR - past
    at = clock_time(digest.at)
    day = shown.date()
    while True:
        due = datetime.combine(day, at, here).astimezone(UTC)
        if due > now:
            return due
        day += _DAY


def clock_time(text: str) -> time:
    """``HH:MM``.  Raises InvalidSettings."""
    match = _CLOCK_TIME.fullmatch(text)
    if match is None:
        raise InvalidSettings(f"{text!r} is not a time of day from 00:00 to 23:59")
    return time(int(match[1]), int(match[2]))


@cache
def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name.  Raises InvalidSettings that suggests similar names."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidSettings(f"time zone {name!r} is unknown{_similar(name)}") from error


def _similar(name: str) -> str:
    """Zones that may be meant: by the whole name, or by its city alone."""
    known = sorted(available_timezones())
    cities = {zone.rpartition("/")[2].lower(): zone for zone in known}
    wanted = name.strip().replace(" ", "_").lower()
    whole = {zone.lower(): zone for zone in known}
    near = [whole[item] for item in difflib.get_close_matches(wanted, whole, 3, 0.75)]
    city = wanted.rpartition("/")[2]
    near += [cities[item] for item in difflib.get_close_matches(city, cities, 3, 0.75)]
    meant = list(dict.fromkeys(near))[:3]
    return f"; did you mean {' or '.join(meant)}?" if meant else "; one is Europe/Berlin"


def _digest_hold(
    digest: Digest, quiet_hours: QuietHours | None, severity: Severity, now: datetime
) -> Hold:
    due = next_digest(digest, now)
    if quiet_hours is not None and not passes(quiet_hours, severity):
        due = first_outside(quiet_hours, due)
    at = f" at {digest.at}" if digest.rhythm is DigestRhythm.DAILY else ""
    return Hold(
        until=due,
        held_for=HeldFor.DIGEST,
        reason=f"{digest.rhythm.value} digest{at} {digest.time_zone}",
    )


def _clock_change(here: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The moment after ``after``, up to ``until``, at which the clock is put forward or back."""

    def offset(moment: datetime) -> timedelta | None:
        return moment.astimezone(here).utcoffset()

    before = offset(after)
    if offset(until) == before:
        return None
    low, high = int(after.timestamp()), int(until.timestamp()) + 1
    while high - low > 1:  # clocks change on a full second
        middle = (low + high) // 2
        if offset(datetime.fromtimestamp(middle, UTC)) == before:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)
