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
from tasks.explaining import Step, Verdict, _checks, explain
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

    def scanned(number: int = 1, **attributes: str) -> tuple[str, list[DeliveryTicket]]:
        data = make_scan(number)
        ticket = record(light, data, **attributes)
        render_formats(light, ticket.run_id, ticket.formats)
        return json.loads(data)["scan_id"], settle(light, ticket.run_id, 1)

    return scanned


@pytest.fixture
def why(light: Any) -> Callable[..., list[Step]]:
    def why(asked: str, name: str = "anna") -> list[Step]:
        with light.ledger.read() as connection:
            decision = read_decision(connection, name, asked)
        return explain(decision, light.clock())

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
    return explain(dataclasses.replace(decision, news=news), parts.clock())


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
    assert texts(why("k"), "subscriber", "k")[-1] == (
        "it was told by a task, to those whom the task named: no delivery"
    )


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
    stopped = [step for step in _checks(subscriber, told, owner) if step.verdict is Verdict.STOPS]
    assert wants(subscriber, told, owner) is not bool(stopped)
