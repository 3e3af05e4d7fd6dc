import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance import durations, inventory
from compliance.durations import DAY, MAX_SECONDS, MONTH, YEAR, read_duration
from compliance.inventory import StringBound, category_of, list_storage_keys, party_of
from schemas.reports import Category, Party
from schemas.scans import CUT_MARK, Storages


@pytest.mark.parametrize(
    ("word", "category"),
    [
        ("Necessary", Category.NECESSARY),
        ("strictly-necessary", Category.NECESSARY),
        ("Strictly_Necessary", Category.NECESSARY),
        ("STRICTLY NECESSARY", Category.NECESSARY),
        ("essential", Category.NECESSARY),
        ("required", Category.NECESSARY),
        ("Functional", Category.FUNCTIONAL),
        ("preferences", Category.FUNCTIONAL),
        ("Functionality", Category.FUNCTIONAL),
        ("analytics", Category.ANALYTICS),
        ("Statistics", Category.ANALYTICS),
        ("performance", Category.ANALYTICS),
        ("measurement", Category.ANALYTICS),
        ("Advertising", Category.ADVERTISING),
        ("marketing", Category.ADVERTISING),
        ("Targeting", Category.ADVERTISING),
        ("ads", Category.ADVERTISING),
        ("Social Media", Category.ADVERTISING),
        ("none", Category.UNCLASSIFIED),
        ("unknown", Category.UNCLASSIFIED),
        ("unclassified", Category.UNCLASSIFIED),
        ("", Category.UNCLASSIFIED),
        (None, Category.UNCLASSIFIED),
        ("necessary" * 100, Category.UNCLASSIFIED),
    ],
)
def test_every_word_for_a_category_becomes_one_of_five(word, category):
    assert category_of(word) is category


@pytest.mark.parametrize(
    ("word", "party"),
    [
        ("First Party", Party.FIRST),
        ("third-party", Party.THIRD),
        ("THIRD_PARTY", Party.THIRD),
        ("second", Party.UNKNOWN),
        (None, Party.UNKNOWN),
    ],
)
def test_a_party_is_what_the_scanner_says_or_unknown(word, party):
    assert party_of(word) is party


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30 days", 30 * DAY),
        ("39 years", 39 * YEAR),
        ("59 seconds", 59),
        ("1 day", DAY),
        ("2 hours", 7200),
        ("1 year 2 months", YEAR + 2 * MONTH),
        ("1 year, 2 months and 3 days", YEAR + 2 * MONTH + 3 * DAY),
        ("1.5 hours", 5400),
        ("3600", 3600),
        (3600, 3600),
        (0, 0),
        (1.9, 1),
        (1e300, MAX_SECONDS),
        ("9" * 60, MAX_SECONDS),
        (-5, None),
        ("-5 days", None),
        ("9" * 9000, None),
        ("forever", None),
        ("3 parsecs", None),
        ("1 day of rest", None),
        ("5 5", None),
        ("٣ days", None),
        ("", None),
        (None, None),
        ("Session", None),
    ],
)
def test_a_duration_is_read_in_seconds_where_it_can_be(value, seconds):
    assert read_duration(value).seconds == seconds


def test_long_text_from_a_site_is_not_remembered():
    kept = (inventory._letters, durations._read_words)
    before = [memo.cache_info().currsize for memo in kept]
    for number in range(3):
        assert category_of(f"{number} " * 40) is Category.UNCLASSIFIED
        assert read_duration(f"{number} days " * 10).seconds is None
    assert [memo.cache_info().currsize for memo in kept] == before


def test_two_years_are_24_months_and_365_days_are_under_13():
    assert read_duration("2 years").seconds == 24 * MONTH
    assert (read_duration("365 days").seconds or 0) < 13 * MONTH


@pytest.mark.parametrize("word", ["Session", " session ", "SESSION COOKIE"])
def test_a_session_cookie_has_no_seconds_but_its_text(word):
    duration = read_duration(word)
    assert duration.is_session
    assert duration.text == word


@given(st.none() | st.text() | st.floats(allow_nan=False))
def test_no_duration_is_too_odd_to_read(value):
    seconds = read_duration(value).seconds
    assert seconds is None or 0 <= seconds <= MAX_SECONDS


def test_a_string_is_cut_at_its_bound_and_counted():
    bound = StringBound(64)
    assert bound("short") == "short"
    assert bound("ü" * 64).endswith(CUT_MARK)
    assert len(bound("ü" * 64).encode()) <= 64
    assert bound.cuts == 2
    assert bound.optional("  ") is None


def test_storage_values_are_measured_and_never_kept():
    deep = "x"
    for _ in range(5000):
        deep = [deep]
    storages = Storages(
        local_storage={"token": "secret", "deep": deep, "list": [1, None, {"key": True}]},
        session_storage=None,
    )
    keys = list_storage_keys(storages, StringBound(100))
    assert [(key.area, key.key, key.value_size) for key in keys] == [
        ("localStorage", "token", 6),
        ("localStorage", "deep", 1),
        ("localStorage", "list", 8),
    ]
