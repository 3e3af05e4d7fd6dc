"""Quiet hours and digests: when each subscriber is told, whatever their clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidSettings
from schemas.notifications import Digest, DigestRhythm, HeldFor, QuietHours, Subscriber
from schemas.reports import Severity
from tasks.holding import (
    first_outside,
    held_until,
    is_quiet,
    next_digest,
    quiet_until,
    zone,
)

BERLIN, NEW_YORK, KATHMANDU = "Europe/Berlin", "America/New_York", "Asia/Kathmandu"
AUCKLAND, LORD_HOWE, HAVANA, SANTIAGO = (
    "Pacific/Auckland",
    "Australia/Lord_Howe",
    "America/Havana",
    "America/Santiago",
)
MINUTE = timedelta(minutes=1)


def local(text: str, name: str = BERLIN, fold: int = 0) -> datetime:
    """A moment as the wall clock of a zone shows it."""
    # in UTC: times that a clock shows twice never equal those of another zone
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name), fold=fold).astimezone(UTC)


def quiet(start: str, end: str, name: str = BERLIN, **more: Any) -> QuietHours:
    return QuietHours(start=start, end=end, time_zone=name, **more)


def released(hours: QuietHours, now: datetime) -> datetime | None:
    hold = quiet_until(hours, Severity.LOW, now)
    return hold and hold.until


# Quiet hours


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        (quiet("22:00", "06:00"), "2026-03-04T21:59:59", None),
        (quiet("22:00", "06:00"), "2026-03-04T22:00", "2026-03-05T06:00"),
        (quiet("22:00", "06:00"), "2026-03-04T23:59:59.999999", "2026-03-05T06:00"),
        (quiet("22:00", "06:00"), "2026-03-05T00:00", "2026-03-05T06:00"),
        (quiet("22:00", "06:00"), "2026-03-05T05:59:59.999999", "2026-03-05T06:00"),
        (quiet("22:00", "06:00"), "2026-03-05T06:00", None),
        (quiet("12:30", "13:45"), "2026-03-04T12:29", None),
        (quiet("12:30", "13:45"), "2026-03-04T12:30", "2026-03-04T13:45"),
        (quiet("12:30", "13:45"), "2026-03-04T13:45", None),
        (quiet("00:00", "23:59"), "2026-03-04T00:00", "2026-03-04T23:59"),
        (quiet("12:01", "12:00"), "2026-03-04T12:01", "2026-03-05T12:00"),
        (quiet("22:00", "00:00"), "2026-12-31T23:00", "2027-01-01T00:00"),
        (quiet("08:00", "08:00"), "2026-03-04T08:00", None),
    ],
)
def test_quiet_hours_last_from_start_to_before_end_across_midnight(hours, now, until):
    assert released(hours, local(now)) == (until and local(until))


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        # 2026-03-29 02:00 becomes 03:00
        (quiet("22:00", "02:30"), local("2026-03-28T23:00"), local("2026-03-29T03:00")),
        (quiet("22:00", "03:00"), local("2026-03-29T01:59:59"), local("2026-03-29T03:00")),
        (quiet("22:00", "06:00"), local("2026-03-28T22:00"), local("2026-03-29T06:00")),
        (quiet("02:15", "02:45"), local("2026-03-29T01:59:59"), None),
        (quiet("02:15", "02:45"), local("2026-03-29T03:00"), None),
        (quiet("02:30", "06:00"), local("2026-03-29T03:00"), local("2026-03-29T06:00")),
        # 2026-10-25 03:00 becomes 02:00
        (quiet("22:00", "06:00"), local("2026-10-24T22:00"), local("2026-10-25T06:00")),
        (quiet("22:00", "02:30"), local("2026-10-24T23:00"), local("2026-10-25T02:30", fold=0)),
        (quiet("22:00", "02:30"), local("2026-10-25T02:45", fold=0), None),
        (
            quiet("22:00", "02:30"),
            local("2026-10-25T02:15", fold=1),
            local("2026-10-25T02:30", fold=1),
        ),
        (quiet("02:30", "06:00"), local("2026-10-25T02:29", fold=1), None),
        # from 02:30 on, until the clock goes back to before it
        (
            quiet("02:30", "06:00"),
            local("2026-10-25T02:45", fold=0),
            local("2026-10-25T02:00", fold=1),
        ),
        (quiet("02:30", "06:00"), local("2026-10-25T02:30", fold=1), local("2026-10-25T06:00")),
    ],
)
def test_in_berlin_the_wall_clock_counts_when_it_is_put_forward_and_back(hours, now, until):
    assert released(hours, now) == until


@pytest.mark.parametrize(
    ("name", "hours", "now", "until"),
    [
        (NEW_YORK, ("22:00", "02:30"), "2026-03-08T01:30", "2026-03-08T07:00"),
        (NEW_YORK, ("22:00", "07:00"), "2026-10-31T22:00", "2026-11-01T12:00"),
        (KATHMANDU, ("22:00", "06:00"), "2026-03-04T23:00", "2026-03-05T00:15"),
        (AUCKLAND, ("22:00", "02:30"), "2026-09-27T01:00", "2026-09-26T14:00"),
        (AUCKLAND, ("22:00", "06:00"), "2026-04-04T22:00", "2026-04-04T18:00"),
        (LORD_HOWE, ("22:00", "02:15"), "2026-10-04T01:00", "2026-10-03T15:30"),
    ],
)
def test_every_zone_has_its_own_night(name, hours, now, until):
    expected = datetime.fromisoformat(until).replace(tzinfo=UTC)
    assert released(quiet(*hours, name), local(now, name)) == expected


def test_a_clock_put_back_across_midnight_ends_the_quiet_time_it_leaves():
    # Havana, 2026-11-01: 01:00 becomes 00:00
    night = quiet("00:30", "06:00", HAVANA)
    assert released(night, local("2026-11-01T00:45", HAVANA)) == local(
        "2026-11-01T00:00", HAVANA, fold=1
    )


@pytest.mark.parametrize(
    ("passing", "severity", "told"),
    [
        (Severity.HIGH, Severity.HIGH, True),
        (Severity.HIGH, Severity.MEDIUM, False),
        (Severity.MEDIUM, Severity.HIGH, True),
        (Severity.INFO, Severity.INFO, True),
        (None, Severity.HIGH, False),
    ],
)
def test_what_is_severe_enough_passes_quiet_hours(passing, severity, told):
    hours = quiet("22:00", "06:00", passing=passing)
    assert (quiet_until(hours, severity, local("2026-03-04T23:00")) is None) is told


def test_the_reason_names_the_quiet_hours():
    hold = quiet_until(quiet("22:00", "06:00"), Severity.LOW, local("2026-03-04T23:00"))
    assert hold is not None
    assert hold.held_for is HeldFor.QUIET_HOURS
    assert hold.reason == "quiet hours 22:00-06:00 Europe/Berlin"


def test_without_quiet_hours_nothing_waits():
    assert held_until(Subscriber(subscriber_id="a"), Severity.INFO, datetime.now(UTC)) is None


ZONES = st.sampled_from(
    [BERLIN, NEW_YORK, KATHMANDU, AUCKLAND, LORD_HOWE, HAVANA, SANTIAGO, "UTC", "Asia/Beirut"]
)
CHANGES = [
    datetime(2026, month, day, tzinfo=UTC)
    for month, day in [(3, 8), (3, 29), (4, 5), (9, 6), (9, 27), (10, 4), (10, 25), (11, 1)]
]
MOMENTS = st.one_of(
    st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)).map(lambda t: t.replace(tzinfo=UTC)),
    st.builds(
        lambda day, seconds: day + timedelta(seconds=seconds),
        st.sampled_from(CHANGES),
        st.integers(-36 * 3600, 36 * 3600),
    ),
)
CLOCK_TIMES = st.one_of(
    st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
    st.builds("{:02}:{:02}".format, st.integers(0, 3), st.sampled_from([0, 15, 30, 45])),
)


@settings(max_examples=200, deadline=None)
@example(SANTIAGO, "00:01", "00:00", datetime(2026, 9, 6, tzinfo=UTC))
@given(name=ZONES, start=CLOCK_TIMES, end=CLOCK_TIMES, now=MOMENTS)
def test_what_waits_is_released_at_the_first_moment_outside_and_never_inside(name, start, end, now):
    hours = quiet(start, end, name)
    hold = quiet_until(hours, Severity.LOW, now)
    if hold is None:
        assert not is_quiet(hours, now)
        return
    assert is_quiet(hours, now)
    assert not is_quiet(hours, hold.until)
    # a day, and one more where the only minute that is not quiet is the one that the clock skips
    assert now < hold.until <= now + timedelta(hours=48)
    # quiet without a break: looked at minute by minute
    moment = (now + MINUTE).astimezone(UTC).replace(second=0, microsecond=0)
    while moment < hold.until:
        assert is_quiet(hours, moment)
        moment += MINUTE
    assert moment == hold.until


# Digests


@pytest.mark.parametrize(
    ("digest", "now", "due"),
    [
        (Digest(rhythm=DigestRhythm.HOURLY), "2026-03-04T10:00:00+00:00", "11:00:00"),
        (Digest(rhythm=DigestRhythm.HOURLY), "2026-03-04T10:59:59.999999+00:00", "11:00:00"),
        (
            Digest(rhythm=DigestRhythm.HOURLY, time_zone=KATHMANDU),
            "2026-03-04T10:00:00+00:00",
            "10:15:00",
        ),
        (Digest(rhythm=DigestRhythm.DAILY), "2026-03-04T07:59:59+00:00", "08:00:00"),
        (
            Digest(rhythm=DigestRhythm.DAILY, at="09:30", time_zone=BERLIN),
            "2026-03-04T08:29:59+00:00",
            "08:30:00",
        ),
    ],
)
def test_a_digest_is_due_at_its_time_in_its_zone(digest, now, due):
    moment = next_digest(digest, datetime.fromisoformat(now))
    assert moment == datetime.fromisoformat(f"2026-03-04T{due}+00:00")


def test_what_comes_at_the_digests_time_is_for_the_next_one():
    daily = Digest(rhythm=DigestRhythm.DAILY, at="08:00", time_zone=BERLIN)
    assert next_digest(daily, local("2026-03-04T08:00")) == local("2026-03-05T08:00")


def test_a_daily_digest_is_due_once_a_day_where_its_hour_is_skipped_or_shown_twice():
    daily = Digest(rhythm=DigestRhythm.DAILY, at="02:30", time_zone=BERLIN)
    assert next_digest(daily, local("2026-03-29T01:00")) == local("2026-03-29T03:30")
    assert next_digest(daily, local("2026-03-29T03:30")) == local("2026-03-30T02:30")
    assert next_digest(daily, local("2026-10-25T01:00")) == local("2026-10-25T02:30", fold=0)
    assert next_digest(daily, local("2026-10-25T02:45", fold=0)) == local("2026-10-26T02:30")


@settings(max_examples=300, deadline=None)
@given(name=ZONES, at=CLOCK_TIMES, now=MOMENTS, rhythm=st.sampled_from(["hourly", "daily"]))
def test_a_digest_is_never_further_away_than_its_rhythm(name, at, now, rhythm):
    digest = Digest(rhythm=DigestRhythm(rhythm), at=at, time_zone=name)
    due = next_digest(digest, now)
    assert now < due <= now + timedelta(hours=1 if rhythm == "hourly" else 25)


def subscriber(**fields: Any) -> Subscriber:
    return Subscriber(subscriber_id="anna", **fields)


DAILY = Digest(rhythm=DigestRhythm.DAILY, at="08:00", time_zone=BERLIN)


def test_a_digest_collects_what_is_less_severe_and_lets_the_rest_through():
    anna = subscriber(digest=DAILY)
    hold = held_until(anna, Severity.MEDIUM, local("2026-03-04T12:00"))
    assert hold is not None
    assert (hold.held_for, hold.until) == (HeldFor.DIGEST, local("2026-03-05T08:00"))
    assert hold.reason == "daily digest at 08:00 Europe/Berlin"
    assert held_until(anna, Severity.HIGH, local("2026-03-04T12:00")) is None


def test_a_digest_waits_for_the_end_of_quiet_hours():
    hourly = Digest(rhythm=DigestRhythm.HOURLY, time_zone=BERLIN)
    anna = subscriber(digest=hourly, quiet_hours=quiet("22:00", "06:30"))
    for now, until in [
        ("2026-03-04T20:30", "2026-03-04T21:00"),
        ("2026-03-04T21:10", "2026-03-05T06:30"),
        ("2026-03-05T02:00", "2026-03-05T06:30"),
        ("2026-03-05T06:31", "2026-03-05T07:00"),
    ]:
        hold = held_until(anna, Severity.LOW, local(now))
        assert hold is not None
        assert (hold.held_for, hold.until) == (HeldFor.DIGEST, local(until))


def test_what_a_digest_lets_through_still_respects_quiet_hours():
    anna = subscriber(digest=DAILY, quiet_hours=quiet("22:00", "06:00", passing=None))
    hold = held_until(anna, Severity.HIGH, local("2026-03-04T23:00"))
    assert hold is not None
    assert (hold.held_for, hold.until) == (HeldFor.QUIET_HOURS, local("2026-03-05T06:00"))


# Zones and times as people write them


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("berlin", "Europe/Berlin"),
        ("US/New York", "America/New_York"),
        ("Katmandu", "Asia/Katmandu"),
    ],
)
def test_an_unknown_zone_is_refused_with_those_that_may_be_meant(name, meant):
    with pytest.raises(InvalidSettings, match=f"did you mean .*{meant}"):
        zone(name)


@pytest.mark.parametrize(
    "name", ["", "../etc/passwd", "/etc/passwd", "Mars/Olympus", "Europe", "\0"]
)
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(InvalidSettings, match="is unknown"):
        zone(name)


def test_a_moment_that_is_not_quiet_is_its_own_end():
    noon = local("2026-03-04T12:00")
    assert first_outside(quiet("22:00", "06:00"), noon) == noon
