import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from compliance.drift import compare
from compliance.inventory import StringBound, list_cookies
from schemas.reports import CookieChange, CookieRef
from schemas.scans import Cookie


def inventory(*cookies):
    return list_cookies(msgspec.convert(cookies, list[Cookie]), StringBound(8192))


def ref(name, domain="", path=""):
    return CookieRef(name=name, domain=domain, path=path)


def test_added_and_removed_cookies_are_named_by_name_domain_and_path():
    drift = compare(
        inventory({"name": "a", "domain": "x"}, {"name": "b", "path": "/1"}),
        inventory({"name": "a", "domain": "y"}, {"name": "b", "path": "/1"}),
    )
    assert drift.added == (ref("a", "y"),)
    assert drift.removed == (ref("a", "x"),)
    assert drift.changed == ()


def test_every_watched_property_that_differs_is_one_change():
    before = {"name": "a", "category": "analytics", "cookie_duration": "1 day",
              "cookie_type": "First Party", "secure": True, "http_only": None,
              "same_site": "Lax"}  # fmt: skip
    after = {"name": "a", "category": "ads", "cookie_duration": "2 days",
             "cookie_type": "Third Party", "secure": False, "http_only": True,
             "same_site": None}  # fmt: skip
    told = [(change.field, change.before, change.after) for change in
            compare(inventory(before), inventory(after)).changed]  # fmt: skip
    assert told == [
        ("category", "analytics", "advertising"),
        ("duration", "1 day", "2 days"),
        ("party", "first", "third"),
        ("secure", "yes", "no"),
        ("http_only", "", "yes"),
        ("same_site", "Lax", ""),
    ]


def test_a_property_that_is_not_watched_is_no_change():
    drift = compare(inventory({"name": "a", "size": 1}), inventory({"name": "a", "size": 2}))
    assert (drift.added, drift.removed, drift.changed) == ((), (), ())


def test_equal_cookies_are_counted_and_not_merged():
    twin, other = {"name": "a"}, {"name": "a", "secure": True}
    drift = compare(inventory(twin, twin, twin), inventory(twin, other))
    assert drift.removed == (ref("a"),)
    assert drift.added == ()
    assert drift.changed == (CookieChange(cookie=ref("a"), field="secure", before="", after="yes"),)


cookies = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abc"), "secure": st.none() | st.booleans()}),
    max_size=12,
)


@given(cookies, cookies, st.integers())
def test_the_order_of_the_cookies_does_not_matter(before, after, seed):
    shuffled = random.Random(seed)
    first = compare(inventory(*before), inventory(*after))
    shuffled.shuffle(before)
    shuffled.shuffle(after)
    assert compare(inventory(*before), inventory(*after)) == first


@given(cookies, cookies)
def test_what_is_added_and_removed_accounts_for_the_difference_in_number(before, after):
    drift = compare(inventory(*before), inventory(*after))
    assert len(after) - len(before) == len(drift.added) - len(drift.removed)


@given(cookies)
def test_a_scan_does_not_differ_from_itself(found):
    drift = compare(inventory(*found), inventory(*found))
    assert (drift.added, drift.removed, drift.changed) == ((), (), ())
