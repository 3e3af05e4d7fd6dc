"""Why somebody was told, or was not: every branch of the explanation, from the ledger's facts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DeliveryRejected, NotFound
from schemas.events import EventType
from schemas.notifications import (
    ChannelKind,
    Digest,
    DigestRhythm,
    Notification,
    QuietHours,
    Receipt,
    Subscriber,
)
from schemas.reports import Severity
from store.decisions import read_decision
from store.deliveries import DeliveryTicket
from store.runs import settle_dead
from store.subscribers import remove_subscriber, wants
from tasks import (
    cleanup_old_notifications,
    send_event_notifications_async,
    send_notification_async,
)
from tasks.decision_steps import Step, Verdict
from tasks.explaining import _checks_of_event, explain
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats
from tasks.sweep import sweep_once
from tasks.telling import plan

LUNCH = QuietHours(start="11:00", end="14:00", time_zone="UTC")


@pytest.fixture
def light(make_parts: Callable[..., Any]) -> Any:
    return make_parts(formats=("csv",))


@pytest.fixture
def scanned(light: Any, record: Any, make_scan: Any) -> Callable[..., Any]:
    """A scan that has travelled to its run's end; returns its id and the tries to make."""

    def scanned(
        number: int = 1, *, fields: dict[str, Any] | None = None, **attributes: str
    ) -> tuple[str, list[DeliveryTicket]]:
        data = make_scan(number, **(fields or {}))
        ticket = record(light, data, **attributes)
        render_formats(light, ticket.run_id, ticket.formats)
        return json.loads(data)["scan_id"], settle(light, ticket.run_id, 1)

    return scanned


@pytest.fixture
def why(light: Any) -> Callable[..., list[Step]]:
    def why(asked: str, name: str = "anna") -> list[Step]:
        with light.ledger.read() as connection:
            decision = read_decision(connection, name, asked)
        return explain(decision, light.clock(), light.settings)

    return why


def texts(steps: list[Step], about: str, key: str | None = "scan.completed") -> list[str]:
    return [
        step.text
        for step in steps
        if step.about == about and (key is None or (step.event_key or "").startswith(key))
    ]


def tell(parts: Any, key: str = "k", **fields: Any) -> list[DeliveryTicket]:
    told = Notification(
        **{
            "event_key": key,
            "type": EventType.OPERATOR_ALERT,
            "occurred_at": parts.clock(),
            "domain": None,
            "scan_id": None,
            "severity": Severity.HIGH,
            "title": "t",
            "summary": "s",
            **fields,
        }
    )
    with parts.ledger.write() as connection:
        return plan(connection, parts, [told], run_id=None, owner=None)[0]


def test_what_was_sent_is_explained_from_the_run_to_the_receipt(light, scanned, subscribe, why):
    subscribe(light, events=("scan.completed",), domains=("*.example",))
    scan, (ticket,) = scanned()
    light.channel(ChannelKind.WEBHOOK).script = [Receipt(status_code=202, text="taken")]
    try_delivery(light, ticket)
    steps = why(scan)
    assert texts(steps, "run", None)[0].endswith("notifications")
    assert "is done" in texts(steps, "run", None)[0]
    assert texts(steps, "news") == ["scan.completed of shop.example, severity high"]
    assert texts(steps, "subscriber") == ["anna was a subscriber"]
    assert texts(steps, "events") == ["events: scan.completed include scan.completed"]
    assert texts(steps, "domain") == ["domains: *.example match shop.example"]
    assert texts(steps, "severity") == ["severity high >= minimum severity info"]
    assert texts(steps, "delivery") == ["a delivery by webhook was planned"]
    assert texts(steps, "attempt") == ["try 1: sent, status 202, receipt: taken"]
    assert texts(steps, "state") == ["sent; nothing follows"]
    assert {step.delivery_id for step in steps if step.about == "attempt"} == {ticket.delivery_id}


@pytest.mark.parametrize(
    ("wishes", "about", "why_not"),
    [
        (
            {"events": ("scan.failed",)},
            "events",
            "events: scan.failed do not include scan.completed",
        ),
        ({"domains": ("*.org", "a.b")}, "domain", "domains: *.org, a.b do not match shop.example"),
    ],
)
def test_a_filter_that_stops_it_is_named_with_the_values_compared(
    light, scanned, subscribe, why, wishes, about, why_not
):
    subscribe(light, **wishes)
    scan, tickets = scanned()
    assert not [ticket for ticket in tickets if ticket.number != 1]
    steps = why(scan)
    (stop,) = [step for step in steps if step.about == about and "completed" in step.event_key]
    assert (stop.verdict, stop.text) == (Verdict.STOPS, why_not)
    assert f"no delivery: filtered, because {why_not}" in texts(steps, "delivery")


def test_too_little_severity_is_told_so(light, subscribe, why):
    subscribe(light, min_severity=Severity.HIGH)
    tell(light, type=EventType.SCAN_FAILED, severity=Severity.MEDIUM)
    steps = explain_by_run(light, "k")
    assert texts(steps, "delivery", "k") == [
        "no delivery: filtered, because minimum severity high > medium"
    ]


def explain_by_run(parts: Any, asked: str) -> list[Step]:
    """As if a run, and no task, had told it."""
    import dataclasses

    with parts.ledger.read() as connection:
        decision = read_decision(connection, "anna", asked)
    news = [dataclasses.replace(item, by_run=True) for item in decision.news]
    return explain(dataclasses.replace(decision, news=news), parts.clock(), parts.settings)


def test_the_owner_is_told_whatever_the_filters_say(light, scanned, subscribe, why):
    subscribe(light, user_id="u-1", events=("scan.failed",))
    scan, tickets = scanned(userid="u-1")
    assert tickets
    assert texts(why(scan), "owner") == [
        "user u-1 owns the scan and is told whatever the filters say"
    ]


def test_who_came_later_was_not_there(light, scanned, subscribe, why, clock):
    scan, _ = scanned()
    clock.forward(60)
    subscribe(light)
    steps = why(scan)
    assert texts(steps, "subscriber") == ["no delivery: anna was added after this was told"]
    assert texts(steps, "delivery") == []


def test_who_was_removed_keeps_what_was_planned(light, scanned, subscribe, why):
    subscribe(light)
    scan, _ = scanned()
    with light.ledger.write() as connection:
        remove_subscriber(connection, "anna", light.clock())
    steps = why(scan)
    assert "deliveries planned before stay on record" in texts(steps, "subscriber")[0]
    assert texts(steps, "state") == ["suppressed: the subscriber was removed"]


def test_wishes_changed_since_are_said_to_be_the_present_ones(
    light, scanned, subscribe, why, clock
):
    subscribe(light, events=("scan.failed",))
    scan, _ = scanned()
    clock.forward(60)
    subscribe(light)
    steps = why(scan)
    (note,) = [
        step
        for step in steps
        if step.verdict is Verdict.NOTE
        and step.about == "subscriber"
        and step.event_key.startswith("scan.completed")
    ]
    assert note.text == "the preferences were changed since; the present ones follow"
    assert note.at == clock.now
    assert texts(steps, "delivery") == [
        "no delivery: the preferences of that time let nothing through; the present ones would"
    ]


def test_a_paused_subscriber_is_told_how_to_go_on(light, scanned, subscribe, why):
    subscribe(light, paused=True)
    scan, _ = scanned()
    assert texts(why(scan), "state") == [
        "suppressed: the subscriber is paused; see: scanherald subscribers resume"
    ]


def test_who_has_no_address_gets_nothing(light, scanned, subscribe, why):
    subscribe(light, kinds=())
    scan, _ = scanned()
    assert texts(why(scan), "delivery") == ["no delivery: there was no address to send it to"]


def test_what_is_held_says_until_when_and_for_what(light, scanned, subscribe, why, clock):
    subscribe(light, quiet_hours=QuietHours(**{**as_dict(LUNCH), "passing": None}))
    scan, _ = scanned()
    steps = why(scan)
    assert texts(steps, "held") == [
        "held for quiet hours until 2026-03-04 14:00:00 UTC: quiet hours 11:00-14:00 UTC"
    ]
    assert texts(steps, "state") == [
        "held: quiet hours 11:00-14:00 UTC; it goes out at 2026-03-04 14:00:00 UTC"
    ]
    clock.now = datetime(2026, 3, 4, 14, 1, tzinfo=UTC)
    assert texts(why(scan), "state") == [
        "held: quiet hours 11:00-14:00 UTC; it is due, and the next sweep lets go of it"
    ]


def as_dict(hours: QuietHours) -> dict[str, Any]:
    return {name: getattr(hours, name) for name in hours.__struct_fields__}


def test_what_a_digest_told_names_it_and_its_tries(light, subscribe, why, clock, published):
    subscribe(light, digest=Digest(rhythm=DigestRhythm.HOURLY))
    for key in ("a", "b"):
        tell(light, key, type=EventType.SCAN_FAILED, severity=Severity.LOW)
    clock.forward(3600)
    sweep_once(light)
    steps = why("a")
    assert texts(steps, "held", "a") == ["held for the digest until 2026-03-04 13:00:00 UTC"]
    (digest,) = texts(steps, "digest", "a")
    assert digest == f"told by the digest {published[0][0]}"
    assert texts(steps, "state", "a") == ["try 1 is published and waits for a worker"]
    light.channel(ChannelKind.WEBHOOK).script = [DeliveryRejected("no", status_code=400)]
    try_delivery(light, DeliveryTicket(published[0][0], 1))
    steps = why("a")
    assert texts(steps, "attempt", "a") == ["try 1: failed, status 400, error: no"]
    assert texts(steps, "state", "a") == [
        f"failed for good: no; again: scanherald deliveries retry {published[0][0]}"
    ]
    steps = why("digest:anna:webhook:2026-03-04T13:00Z")
    assert texts(steps, "events", "digest") == ["a digest is told to whom it was made for"]


def test_a_try_that_comes_later_says_when(light, scanned, subscribe, why, clock):
    from schemas.errors import ChannelUnavailable

    subscribe(light)
    scan, tickets = scanned()
    light.channel(ChannelKind.WEBHOOK).script = [ChannelUnavailable("busy", retry_after=7200)]
    try_delivery(light, tickets[0])
    (state, *_) = texts(why(scan), "state")
    assert state.startswith("try 2 is due at 2026-03-04 ")
    assert state.endswith(": busy")
    clock.forward(86_400)
    (state, *_) = texts(why(scan), "state")
    assert state == "try 2 is due; the next sweep starts it: busy"


def test_a_try_in_a_workers_hand_says_so(light, scanned, subscribe, why):
    from store.tries import lease

    subscribe(light)
    scan, tickets = scanned()
    with light.ledger.write() as connection:
        assert lease(connection, tickets[0], lease_until=light.clock() + timedelta(minutes=5))
    assert texts(why(scan), "state")[0] == (
        "a worker has it in hand until 2026-03-04 12:05:00 UTC at the latest"
    )


def test_a_run_under_way_and_a_dead_one_say_that_nothing_was_told(
    light, subscribe, why, record, make_scan
):
    subscribe(light)
    data = make_scan()
    ticket = record(light, data)
    scan = json.loads(data)["scan_id"]
    steps = why(scan)
    assert [step.verdict for step in steps] == [Verdict.WAITS, Verdict.STOPS]
    assert "it tells what there is when it is done" in steps[0].text
    with light.ledger.write() as connection:
        settle_dead(connection, ticket.run_id, "gave up", light.clock())
    steps = why(ticket.run_id)
    assert steps[0].text.endswith("is dead and tells nothing: gave up")
    assert steps[0].verdict is Verdict.STOPS


def test_an_alert_goes_to_those_alone_who_name_it(light, subscribe, why):
    subscribe(light)
    subscribe(light, "ops", events=("operator.alert",))
    tell(light)
    assert texts(why("k"), "delivery", "k") == [
        "no delivery: filtered, because operator.alert is not asked for by name"
    ]
    assert texts(why("k", "ops"), "events", "k") == ["operator.alert is asked for by name"]


def test_what_a_task_told_others_is_no_business_of_the_filters(light, subscribe, why):
    subscribe(light, min_severity=Severity.HIGH)
    tell(light, type=EventType.SCAN_FAILED, severity=Severity.LOW)
    why_not = "a task told it to users it named, and anna is of none"
    assert texts(why("k"), "subscriber", "k")[-1] == why_not
    assert texts(why("k"), "severity", "k") == []
    assert texts(why("k"), "delivery", "k") == [f"no delivery: filtered, because {why_not}"]


@pytest.mark.parametrize(
    ("wishes", "user", "why_not"),
    [
        (
            {"events": ("scan.failed",)},
            "u1",
            "filtered, because events: scan.failed do not include scan.completed",
        ),
        ({}, "u2", "the task did not name user u1"),
        ({"min_severity": Severity.HIGH}, "u1", None),
    ],
)
def test_what_a_task_told_by_name_is_explained_by_what_the_task_asks(
    light, subscribe, why, wishes, user, why_not
):
    subscribe(light, user_id="u1", **wishes)
    done = send_event_notifications_async.apply(("scan.completed", {"domain": "a.b"}, user))
    steps = why(f"scan.completed:task:{done.id}")
    said = texts(steps, "delivery", "scan.completed")
    assert said == (
        [f"no delivery: {why_not}"] if why_not else ["a delivery by webhook was planned"]
    )
    assert "a task told it to users it named; anna is of user u1" in texts(steps, "subscriber")


def test_an_address_that_was_passed_along_is_nobodys_subscription(light, subscribe, why, rows):
    subscribe(light, user_id="u1")
    send_notification_async.apply(
        ({"event": "scan.completed", "user_id": "u1"}, {"email": "a@example.org"})
    )
    (row,) = rows(light, "deliveries")
    assert texts(why(row["event_key"]), "delivery", "direct:") == [
        "no delivery: filtered, because a task told it to the one address that the platform passed"
    ]
    steps = why(row["event_key"], row["subscriber_id"])
    assert texts(steps, "subscriber", "direct:")[0].endswith(
        "is no subscriber: the platform passed an address along; "
        "deliveries planned before stay on record"
    )
    assert texts(steps, "state", "direct:") == ["sent; nothing follows"]


# What was forgotten


def test_a_delivery_that_was_made_and_cleaned_up_is_not_denied(light, scanned, subscribe, why):
    subscribe(light)
    scan, tickets = scanned()
    for ticket in tickets:
        try_delivery(light, ticket)
    assert texts(why(scan), "state") == ["sent; nothing follows"]
    light.clock.forward(40 * 86_400)
    cleanup_old_notifications.apply((30,))
    (said,) = texts(why(scan), "delivery")
    assert said.startswith("no delivery is on record any more; what was settled then")
    assert "SCANHERALD_NOTIFICATIONS_RETENTION_DAYS" in said
    with light.ledger.write() as connection:
        remove_subscriber(connection, "anna", light.clock())
    subscribe(light, "ben")
    with pytest.raises(NotFound, match="no subscriber 'anna'"):
        why(scan)


@pytest.mark.parametrize("events", [(), ("scan.failed",)])
def test_where_wishes_were_changed_and_records_are_gone_both_are_said(
    light, scanned, subscribe, why, clock, events
):
    subscribe(light)
    scan, tickets = scanned()
    for ticket in tickets:
        try_delivery(light, ticket)
    clock.forward(40 * 86_400)
    cleanup_old_notifications.apply((30,))
    subscribe(light, events=events)
    (said,) = texts(why(scan), "delivery")
    present = "would not" if events else "would"
    assert f"let nothing through (the present ones {present}), or what was settled then" in said


def test_what_the_same_wishes_stop_was_stopped_however_long_ago(
    light, scanned, subscribe, why, clock
):
    subscribe(light, events=("scan.failed",))
    scan, _ = scanned()
    clock.forward(40 * 86_400)
    (said,) = texts(why(scan), "delivery")
    assert said.startswith("no delivery: filtered, because events: scan.failed do not include")


def test_an_older_delivery_on_record_proves_that_nothing_was_forgotten(
    light, scanned, subscribe, why, clock
):
    subscribe(light, "ben")
    _, tickets = scanned(1)
    for ticket in tickets:
        try_delivery(light, ticket)
    subscribe(light, kinds=())
    scan, _ = scanned(2)
    clock.forward(40 * 86_400)
    assert texts(why(scan), "delivery") == ["no delivery: there was no address to send it to"]


# Violations

SAID = "2026-03-04 12:00:00 UTC"


def clean(make_scan: Any) -> dict[str, Any]:
    """Fields of a scan that finds none of the trackers."""
    return {
        "cookies": [item for item in json.loads(make_scan())["cookies"] if item["name"] == "sid"]
    }


def test_each_scan_says_what_it_made_of_its_domains_violations(
    light, scanned, subscribe, why, make_scan, clock
):
    subscribe(light)
    first, _ = scanned(1)
    began = texts(why(first), "violation", None)
    assert began
    assert all(said.endswith(f": it began with this scan, told at {SAID}") for said in began)
    clock.forward(86_400)
    second, _ = scanned(2)
    said = texts(why(second), "violation", None)
    assert len(said) == len(began)
    assert all(
        text.endswith(
            f": known since 2026-03-04 03:00:00 UTC and last told at {SAID}; found again, silent: "
            "a scan that finds it from 2026-03-11 12:00:00 UTC on reminds"
        )
        for text in said
    )
    clock.forward(8 * 86_400)
    third, _ = scanned(3)
    assert all(
        text.endswith("found again and told at 2026-03-13 12:00:00 UTC as reminder 1")
        for text in texts(why(third), "violation", None)
    )
    assert "follow a newer scan" in texts(why(first), "violation", None)[0]
    fourth, _ = scanned(4, fields=clean(make_scan))
    ended = texts(why(fourth), "violation", None)
    assert all(
        "this scan does not find it any more; its end was told at 2026-03-13" in text
        for text in ended
    )
    fifth, _ = scanned(5, fields=clean(make_scan))
    assert all(text.endswith("; no news of it") for text in texts(why(fifth), "violation", None))
    sixth, _ = scanned(6)
    assert all(
        ", occurrence 2: it began with this scan" in text
        for text in texts(why(sixth), "violation", None)
    )


def test_an_inconclusive_scan_has_no_say_and_why_says_so(light, scanned, subscribe, why):
    subscribe(light)
    scanned(1)
    scan, _ = scanned(2, fields={"page_count": 0})
    (said,) = texts(why(scan), "violation", None)
    assert said.startswith("the scan is inconclusive: it has no say on violations; the ")
    assert said.endswith("open ones of shop.example stay as they are")


def test_a_quick_scan_that_does_not_find_it_says_why_it_stays_open(
    light, scanned, subscribe, why, make_scan
):
    subscribe(light)
    scanned(1)
    scan, _ = scanned(2, fields={"scan_mode": "quick", **clean(make_scan)})
    said = texts(why(scan), "violation", None)
    assert said
    assert all("not found by this scan, which does not end it: a quick scan" in t for t in said)


def test_a_clean_domain_says_that_nothing_severe_enough_was_found(
    light, scanned, subscribe, why, make_scan
):
    subscribe(light)
    scan, _ = scanned(1, fields=clean(make_scan))
    (said,) = texts(why(scan), "violation", None)
    assert said.endswith("no conclusive scan has found anything of severity high or more")


def test_a_violations_end_weighs_as_its_start_did(light, scanned, subscribe, why, make_scan):
    subscribe(light, min_severity=Severity.HIGH)
    scanned(1)
    scan, tickets = scanned(2, fields=clean(make_scan))
    assert tickets
    steps = why(scan)
    key = "compliance.violation"
    assert texts(steps, "news", key) == [
        "compliance.violation of shop.example, severity info, weighs high as its start did"
    ]
    assert texts(steps, "severity", key) == ["severity high >= minimum severity high"]
    assert texts(steps, "delivery", key) == ["a delivery by webhook was planned"]


@pytest.mark.parametrize("asked", ["run", "event", "entry", "key"])
def test_the_same_news_are_found_by_each_of_their_names(
    light, scanned, subscribe, why, rows, asked
):
    subscribe(light)
    scan, _ = scanned()
    names = {
        "run": rows(light, "runs")[0]["run_id"],
        "event": rows(light, "events")[0]["event_id"],
        "entry": rows(light, "events")[0]["entry_id"],
        "key": f"scan.completed:{scan}",
    }
    assert texts(why(names[asked]), "delivery") == texts(why(scan), "delivery")


def test_what_was_told_before_is_found_by_the_later_run(light, scanned, subscribe, why, record):
    subscribe(light)
    scan, _ = scanned()
    ticket = record(light, b'{"domain": "a.b"}', type="scan.started", id="x", source="y")
    with light.ledger.write() as connection:
        from sqlalchemy import update

        from store.tables import events

        connection.execute(
            update(events)
            .where(events.c.event_id == "x")
            .values(reason=f"1 notifications, 1 of them told before: scan.completed:{scan}")
        )
    assert texts(why(ticket.run_id), "delivery") == ["a delivery by webhook was planned"]


def test_what_nobody_knows_is_not_found(light, subscribe, why):
    with pytest.raises(NotFound, match="no subscriber 'anna'"):
        why("k")
    subscribe(light)
    with pytest.raises(NotFound, match="no event key, scan, run, event or entry 'k'"):
        why("k")


SUBSCRIBERS = st.builds(
    Subscriber,
    subscriber_id=st.just("a"),
    user_id=st.sampled_from([None, "u"]),
    events=st.sampled_from([(), ("scan.completed",), ("operator.alert",), ("scan.failed",)]),
    domains=st.sampled_from([(), ("*.example",), ("other.org", "sh?p.example")]),
    min_severity=st.sampled_from(list(Severity)),
)


@given(
    subscriber=SUBSCRIBERS,
    kind=st.sampled_from([EventType.SCAN_COMPLETED, EventType.OPERATOR_ALERT]),
    severity=st.sampled_from(list(Severity)),
    domain=st.sampled_from([None, "shop.example", "shop.example.org"]),
    owner=st.sampled_from([None, "u", "v"]),
)
def test_the_explanation_never_disagrees_with_the_decision(
    subscriber, kind, severity, domain, owner
):
    told = Notification(
        event_key="k", type=kind, occurred_at=datetime.now(UTC), domain=domain, scan_id=None,
        severity=severity, title="t", summary="s",
    )  # fmt: skip
    checks = _checks_of_event(subscriber, told, owner)
    stopped = [step for step in checks if step.verdict is Verdict.STOPS]
    assert wants(subscriber, told, owner) is not bool(stopped)
