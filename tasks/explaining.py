"""Why a subscriber was told, or was not: the decision from the ledger's facts, step by step.

Pure.  Filters are those of ``store.subscribers.wants``, one by one, with the values
that were compared.  They are the present ones: where they were changed since, a
step says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

import msgspec
from sqlalchemy import RowMapping

from schemas.events import EventType
from schemas.notifications import HeldFor, Notification, Subscriber
from schemas.runs import DeliveryState, RunState
from store.decisions import Decision, DeliveryFacts, NewsFacts
from store.subscribers import (
    SubscriberRecord,
    owns,
    wants,
    wants_domain,
    wants_severity,
    wants_type,
)
from tasks.holding import PAUSED


class Verdict(StrEnum):
    """What a step does to the message."""

    LETS_THROUGH = "yes"
    STOPS = "no"
    WAITS = "waits"
    NOTE = "note"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a decision, for people to read and scripts to sort."""

    about: str
    """run, news, subscriber, owner, events, domain, severity, delivery, held, attempt, digest or
    state."""
    verdict: Verdict
    text: str
    event_key: str | None = None
    delivery_id: str | None = None
    at: datetime | None = None


def explain(decision: Decision, now: datetime) -> list[Step]:
    """Every step from the event to what the other side answered, in order."""
    steps = [step for run in decision.runs for step in _run_steps(run)]
    if not decision.news:
        steps.append(
            Step(
                about="news",
                verdict=Verdict.STOPS,
                text="nothing was told to anybody: no run of it has been settled as done",
            )
        )
    for news in decision.news:
        key = news.notification.event_key
        steps += [
            msgspec.structs.replace(step, event_key=key)
            for step in _news_steps(decision, news, now)
        ]
    return steps


def _run_steps(run: RowMapping) -> Iterator[Step]:
    state, why = run["state"], run["last_error"] or run["reason"] or "no reason is on record"
    name = f"the run {run['run_id']} of {run['type']}"
    if run["kind"] == "replay":
        name += ", a replay"
    if state == RunState.DONE:
        text, verdict = f"{name} is done: {run['reason']}", Verdict.LETS_THROUGH
    elif state == RunState.DEAD:
        text, verdict = f"{name} is dead and tells nothing: {why}", Verdict.STOPS
    else:
        text, verdict = f"{name} is {state}: it tells what there is when it is done", Verdict.WAITS
    yield Step(about="run", verdict=verdict, text=text, at=run["settled_at"] or run["created_at"])


def _news_steps(decision: Decision, news: NewsFacts, now: datetime) -> Iterator[Step]:
    told = news.notification
    yield Step(
        about="news",
        verdict=Verdict.NOTE,
        text=f"{told.type} of {told.domain or 'no domain'}, severity {told.severity}",
        at=news.told_at,
    )
    yield from _filter_steps(decision.subscriber_id, decision.record, news)
    for delivery in news.deliveries:
        yield from _delivery_steps(delivery, now)


def _filter_steps(name: str, record: SubscriberRecord | None, news: NewsFacts) -> Iterator[Step]:
    planned = bool(news.deliveries)
    if record is None:
        yield Step(
            about="subscriber",
            verdict=Verdict.NOTE if planned else Verdict.STOPS,
            text=f"{name} is no subscriber now"
            + ("; deliveries planned before stay on record" if planned else ": no delivery"),
        )
        return
    if record.created_at > news.told_at and not planned:
        yield Step(
            about="subscriber",
            verdict=Verdict.STOPS,
            text=f"no delivery: {name} was added after this was told",
            at=record.created_at,
        )
        return
    yield Step(
        about="subscriber",
        verdict=Verdict.LETS_THROUGH,
        text=f"{name} was a subscriber",
        at=record.created_at,
    )
    changed = record.changed_at is None or record.changed_at > news.told_at
    if changed:
        yield Step(
            about="subscriber",
            verdict=Verdict.NOTE,
            text="the preferences were changed since; the present ones follow"
            if record.changed_at
            else "an earlier release did not note changes; the present preferences follow",
            at=record.changed_at,
        )
    if not news.by_run and news.notification.type not in _OURS:
        yield Step(
            about="subscriber",
            verdict=Verdict.NOTE if planned else Verdict.STOPS,
            text="it was told by a task, to those whom the task named"
            + ("" if planned else ": no delivery"),
        )
        return
    checks = list(_checks(record.subscriber, news.notification, news.owner))
    yield from checks
    if planned:
        return
    against = [step.text for step in checks if step.verdict is Verdict.STOPS]
    if not wants(record.subscriber, news.notification, news.owner):
        why = f"filtered, because {'; '.join(against)}"
    elif changed:
        why = "the preferences of that time let nothing through; the present ones would"
    else:
        why = "there was no address to send it to"
    yield Step(about="delivery", verdict=Verdict.STOPS, text=f"no delivery: {why}")


_OURS = (EventType.OPERATOR_ALERT, EventType.NOTIFICATION_DIGEST)


def _checks(subscriber: Subscriber, told: Notification, owner: str | None) -> Iterator[Step]:
    """The filters one by one, as ``wants`` asks them, with the values compared."""
    if told.type is EventType.NOTIFICATION_DIGEST:
        yield _check("events", True, "a digest is told to whom it was made for", "")
        return
    if told.type is EventType.OPERATOR_ALERT:
        named = told.type in subscriber.events
        yield _check(
            "events",
            named,
            f"{told.type} is asked for by name",
            f"{told.type} is not asked for by name",
        )
        return
    if owns(subscriber, owner):
        yield _check(
            "owner", True, f"user {owner} owns the scan and is told whatever the filters say", ""
        )
        return
    events = ", ".join(subscriber.events)
    yield _check(
        "events",
        wants_type(subscriber, told),
        f"events: {events or 'all'} include {told.type}",
        f"events: {events} do not include {told.type}",
    )
    domains = ", ".join(subscriber.domains)
    yield _check(
        "domain",
        wants_domain(subscriber, told),
        f"domains: {domains or 'all'} match {told.domain or 'no domain'}",
        f"domains: {domains} do not match {told.domain or 'no domain'}",
    )
    least = subscriber.min_severity
    yield _check(
        "severity",
        wants_severity(subscriber, told),
        f"severity {told.severity} >= minimum severity {least}",
        f"minimum severity {least} > {told.severity}",
    )


def _check(about: str, met: bool, yes: str, no: str) -> Step:
    verdict = Verdict.LETS_THROUGH if met else Verdict.STOPS
    return Step(about=about, verdict=verdict, text=yes if met else no)


def _delivery_steps(delivery: DeliveryFacts, now: datetime) -> Iterator[Step]:
    row = delivery.row
    found = [
        Step(
            about="delivery",
            verdict=Verdict.LETS_THROUGH,
            text=f"a delivery by {row['channel']} was planned",
            at=row["created_at"],
        )
    ]
    if row["held_for"]:
        wish = "quiet hours" if row["held_for"] == HeldFor.QUIET_HOURS else "the digest"
        found.append(
            Step(
                about="held",
                verdict=Verdict.WAITS,
                text=f"held for {wish} until {_time(row['held_until'])}"
                + (f": {row['reason']}" if _waits(row) else ""),
                at=row["held_until"],
            )
        )
    found += _attempt_steps(delivery)
    if row["merged_into"] is None:
        found.append(_state(row, now))
    elif delivery.digest is None:
        found.append(
            Step(
                about="digest",
                verdict=Verdict.NOTE,
                text=f"it was {row['state']} with the digest {row['merged_into']}, "
                "which is no longer on record",
                at=row["settled_at"],
            )
        )
    else:
        found.append(
            Step(
                about="digest",
                verdict=Verdict.LETS_THROUGH,
                text=f"told by the digest {row['merged_into']}",
                at=delivery.digest.row["created_at"],
            )
        )
        found += _attempt_steps(delivery.digest)
        found.append(_state(delivery.digest.row, now))
    for step in found:
        yield msgspec.structs.replace(step, delivery_id=row["delivery_id"])


def _attempt_steps(delivery: DeliveryFacts) -> list[Step]:
    return [
        Step(
            about="attempt",
            verdict=Verdict.LETS_THROUGH if made["outcome"] == "sent" else Verdict.STOPS,
            text=f"try {made['number']}: {made['outcome']}"
            + (f", status {made['status_code']}" if made["status_code"] is not None else "")
            + (f", error: {made['error']}" if made["error"] else "")
            + (f", receipt: {made['receipt']}" if made["receipt"] else ""),
            at=made["started_at"],
        )
        for made in delivery.tries
    ]


def _state(row: RowMapping, now: datetime) -> Step:
    """Where a delivery stands, and what happens next."""
    due, lease, reason = row["due_at"], row["lease_until"], row["reason"]
    because = f": {reason}" if reason else ""
    verdict, at = Verdict.WAITS, due
    match row["state"]:
        case DeliveryState.SENT:
            text, verdict, at = "sent; nothing follows", Verdict.LETS_THROUGH, row["settled_at"]
        case DeliveryState.FAILED:
            retry = f"scanherald deliveries retry {row['delivery_id']}"
            text, verdict = f"failed for good{because}; again: {retry}", Verdict.STOPS
            at = row["settled_at"]
        case DeliveryState.SUPPRESSED:
            text, verdict, at = f"suppressed{because}", Verdict.STOPS, row["settled_at"]
            if reason == PAUSED:
                text += "; see: scanherald subscribers resume"
        case DeliveryState.HELD:
            text = f"held{because}; it goes out at {_time(due)}"
            if due <= now:
                text = f"held{because}; it is due, and the next sweep lets go of it"
        case DeliveryState.SENDING:
            text = f"a worker has it in hand until {_time(lease)} at the latest"
        case _ if lease is not None and lease > now:
            text = f"try {row['tries'] + 1} is published and waits for a worker{because}"
        case _ if due > now:
            text = f"try {row['tries'] + 1} is due at {_time(due)}{because}"
        case _:
            text = f"try {row['tries'] + 1} is due; the next sweep starts it{because}"
    return Step(about="state", verdict=verdict, text=text, at=at)


def _waits(row: RowMapping) -> bool:
    return row["state"] == DeliveryState.HELD and row["merged_into"] is None


def _time(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
