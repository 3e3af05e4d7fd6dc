"""Why a subscriber was told, or was not: the decision from the ledger's facts, step by step.

Pure.  Filters are those of ``store.subscribers.wants``, one by one, with the values
that were compared; of what a task told, those of the public tasks.  They are the
present ones: where they were changed since, a step says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import RowMapping

from schemas.events import EventType
from schemas.notifications import PASSED_ALONG, HeldFor, Notification, Subscriber
from schemas.runs import DeliveryState, RunState
from schemas.settings import Settings
from store.decisions import Decision, DeliveryFacts, NewsFacts
from store.retention import LEAST_KEPT_DAYS
from store.subscribers import (
    SubscriberRecord,
    owns,
    wants_domain,
    wants_severity,
    wants_type,
)
from tasks.decision_steps import Step, Verdict, time_words
from tasks.explaining_violations import violation_steps
from tasks.holding import PAUSED


def explain(decision: Decision, now: datetime, settings: Settings) -> list[Step]:
    """Every step from the event to what the other side answered, in order."""
    steps = [step for run in decision.runs for step in _run_steps(run)]
    if decision.scan is not None:
        steps += violation_steps(decision.scan, _variant(decision), settings)
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


def _variant(decision: Decision) -> str | None:
    """Of the news that the scan was finished."""
    told = (news.notification for news in decision.news if news.by_run)
    return next((item.variant for item in told if item.type is EventType.SCAN_COMPLETED), None)


def _run_steps(run: RowMapping) -> Iterator[Step]:
    state, why = run["state"], run["last_error"] or run["reason"] or "no reason is on record"
    name = f"the run {run['run_id']} of {run['type']}"
    if run["kind"] == "replay":
        name += ", a replay"
    if state == RunState.DONE:
        text, verdict = f"{name} is done: {run['reason']}", Verdict.LETS_THROUGH
    elif state == RunState.DEAD:
        text, verdict = f"{name} is dead and tells nothing: {why}", Verdict.STOPS
    elif state == RunState.CANCELLED:
        retry = f"scanherald runs retry {run['run_id']}"
        text, verdict = f"{name} tells nothing: {why}; again: {retry}", Verdict.STOPS
    else:
        text, verdict = f"{name} is {state}: it tells what there is when it is done", Verdict.WAITS
    yield Step(about="run", verdict=verdict, text=text, at=run["settled_at"] or run["created_at"])


def _news_steps(decision: Decision, news: NewsFacts, now: datetime) -> Iterator[Step]:
    told = news.notification
    yield Step(
        about="news",
        verdict=Verdict.NOTE,
        text=f"{told.type} of {told.domain or 'no domain'}, severity {told.severity}"
        + (f", weighs {told.weighs} as its start did" if told.weighs else ""),
        at=news.told_at,
    )
    yield from _filter_steps(decision.subscriber_id, decision.record, news, now)
    for delivery in news.deliveries:
        yield from _delivery_steps(delivery, now)


def _filter_steps(
    name: str, record: SubscriberRecord | None, news: NewsFacts, now: datetime
) -> Iterator[Step]:
    planned, forgotten = bool(news.deliveries), _is_forgotten(news, now)
    if record is None:
        yield Step(
            about="subscriber",
            verdict=Verdict.NOTE if planned or forgotten else Verdict.STOPS,
            text=f"{name} is {_NOBODY if name.startswith(PASSED_ALONG) else 'no subscriber now'}"
            + ("; deliveries planned before stay on record" if planned else "")
            + (f"; {FORGOTTEN}" if forgotten else "")
            + ("" if planned or forgotten else ": no delivery"),
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
    checks = list(_checks(record.subscriber, news))
    yield from checks
    if planned:
        return
    against = [step.text for step in checks if step.verdict is Verdict.STOPS]
    if forgotten and (changed or not against):
        yield Step(about="delivery", verdict=Verdict.NOTE, text=_perhaps(against, changed))
        return
    if against:
        why = f"filtered, because {'; '.join(against)}"
    elif changed:
        why = "the preferences of that time let nothing through; the present ones would"
    elif _is_by_task(news):
        why = f"the task did not name user {record.subscriber.user_id}"
    else:
        why = "there was no address to send it to"
    yield Step(about="delivery", verdict=Verdict.STOPS, text=f"no delivery: {why}")


FORGOTTEN = (
    "what was settled then is no longer on record: it is kept for "
    "SCANHERALD_NOTIFICATIONS_RETENTION_DAYS, or as long as a cleanup was told"
)

_NOBODY = "no subscriber: the platform passed an address along"


def _is_forgotten(news: NewsFacts, now: datetime) -> bool:
    """Whether a delivery may have been made, and its record have been cleaned up since."""
    old = now - news.told_at >= timedelta(days=LEAST_KEPT_DAYS)
    return old and not news.complete and not news.deliveries


def _perhaps(against: list[str], changed: bool) -> str:
    """What can be said of a delivery whose record may be gone."""
    if not changed:
        return f"no delivery is on record any more; {FORGOTTEN}"
    present = "would not" if against else "would"
    return (
        "no delivery is on record: the preferences of that time let nothing through (the present "
        f"ones {present}), or {FORGOTTEN}"
    )


def _is_by_task(news: NewsFacts) -> bool:
    return not news.by_run and news.notification.type not in _OURS


_OURS = (EventType.OPERATOR_ALERT, EventType.NOTIFICATION_DIGEST)


def _checks(subscriber: Subscriber, news: NewsFacts) -> Iterator[Step]:
    """The filters one by one, with the values compared."""
    if _is_by_task(news):
        return _checks_of_task(subscriber, news.notification)
    return _checks_of_event(subscriber, news.notification, news.owner)


def _checks_of_task(subscriber: Subscriber, told: Notification) -> Iterator[Step]:
    """What the public tasks ask: whom they are told to tell, and whether of such events."""
    if told.event_key.startswith(PASSED_ALONG):
        yield _check(
            "subscriber", False, "", "a task told it to the one address that the platform passed"
        )
        return
    yield _check(
        "subscriber",
        subscriber.user_id is not None,
        f"a task told it to users it named; {subscriber.subscriber_id} is of user "
        f"{subscriber.user_id}",
        f"a task told it to users it named, and {subscriber.subscriber_id} is of none",
    )
    yield _check_type(subscriber, told)


def _checks_of_event(
    subscriber: Subscriber, told: Notification, owner: str | None
) -> Iterator[Step]:
    """The filters as ``wants`` asks them."""
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
    yield _check_type(subscriber, told)
    domains = ", ".join(subscriber.domains)
    yield _check(
        "domain",
        wants_domain(subscriber, told),
        f"domains: {domains or 'all'} match {told.domain or 'no domain'}",
        f"domains: {domains} do not match {told.domain or 'no domain'}",
    )
    least, weight = subscriber.min_severity, told.weighs or told.severity
    yield _check(
        "severity",
        wants_severity(subscriber, told),
        f"severity {weight} >= minimum severity {least}",
        f"minimum severity {least} > {weight}",
    )


def _check_type(subscriber: Subscriber, told: Notification) -> Step:
    events = ", ".join(subscriber.events)
    return _check(
        "events",
        wants_type(subscriber, told),
        f"events: {events or 'all'} include {told.type}",
        f"events: {events} do not include {told.type}",
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
                text=f"held for {wish} until {time_words(row['held_until'])}"
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
            text = f"held{because}; it goes out at {time_words(due)}"
            if due <= now:
                text = f"held{because}; it is due, and the next sweep lets go of it"
        case DeliveryState.SENDING:
            text = f"a worker has it in hand until {time_words(lease)} at the latest"
        case _ if lease is not None and lease > now:
            text = f"try {row['tries'] + 1} is published and waits for a worker{because}"
        case _ if due > now:
            text = f"try {row['tries'] + 1} is due at {time_words(due)}{because}"
        case _:
            text = f"try {row['tries'] + 1} is due; the next sweep starts it{because}"
    return Step(about="state", verdict=verdict, text=text, at=at)


def _waits(row: RowMapping) -> bool:
    return row["state"] == DeliveryState.HELD and row["merged_into"] is None
