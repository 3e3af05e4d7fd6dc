"""A dry run: what a replay would do, by the same looks and rules, and nothing written.

Exact for the moment: what is recorded or settled meanwhile may change it.  Whom
it would tell is found out by judging each scan, as the body would.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from listener.replay_items import Item, Source
from listener.replay_looks import OTHER_EVENT, Look, look_at
from listener.replay_rules import decide, decide_new
from schemas.errors import NotFound
from schemas.events import Event
from schemas.replays import Counts, Failure, ReplayRequest, Skip
from schemas.reports import Format
from schemas.runs import Run, RunState
from store.endpoints import disabled_endpoints
from store.events import foresee_inputs
from store.replayed import Known, has_identity, newest_run
from store.replays import FAILURES_KEPT
from store.runs import load_run
from store.subscribers import match_subscribers
from tasks.finish import foresee_news
from tasks.telling import recipients
from tasks.telling_again import violations_told
from tasks.wiring import Wiring


@dataclass(slots=True)
class Told:
    """What one subscriber would get: deliveries at once, held for later, or suppressed."""

    notifications: int = 0
    at_once: int = 0
    held: int = 0
    suppressed: int = 0


@dataclass(slots=True)
class Forecast:
    """The counts of a replay that was not made.  ``formats`` count renderings."""

    counts: Counts = field(default_factory=Counts)
    formats: Counter[str] = field(default_factory=Counter)
    told: dict[str, Told] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def foresee(
    parts: Wiring,
    request: ReplayRequest,
    source: Source,
    show: Callable[[float, Counts], None],
) -> Forecast:
    """Walk the whole source.  Raises LedgerUnavailable, StreamUnavailable."""
    forecast = Forecast()
    met = _Met()
    try:
        for page in source.pages(None):
            with parts.ledger.read() as connection:
                looks = look_at(connection, page.items, None)
            for look in looks:
                _foresee_one(parts, request, look, met, forecast)
            show(source.fraction(page.position), forecast.counts)
    finally:
        met.close()
    return forecast


class _Met:
    """Which events were met: on disk where they are many, so that memory stays flat."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file, gone when it is closed
        self._database.execute("CREATE TABLE met (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def again(self, *names: str) -> bool:
        """Whether any of these names was met before; from now on all are."""
        digests = [hashlib.sha256(name.encode("utf-8", "replace")).digest() for name in names]
        added = self._database.executemany(
            "INSERT OR IGNORE INTO met VALUES (?)", [(digest,) for digest in digests]
        ).rowcount
        return added < len(set(digests))

    def close(self) -> None:
        self._database.close()


def _foresee_one(
    parts: Wiring, request: ReplayRequest, look: Look, met: _Met, forecast: Forecast
) -> None:
    counts = forecast.counts
    counts.selected += 1
    decision = _decide(parts, request, look, met)
    if isinstance(decision, Skip):
        counts.skip(decision)
        return
    if isinstance(decision, str):
        counts.failed += 1
        if len(forecast.failures) < FAILURES_KEPT:
            forecast.failures.append(Failure(look.item.name, decision))
        return
    counts.started += 1
    counts.new += look.known is None
    forecast.formats.update(name.value for name in decision)
    if request.tells:
        run = _run_of(parts, look)
        _foresee_told(parts, run, look.known, forecast)


def _decide(
    parts: Wiring, request: ReplayRequest, look: Look, met: _Met
) -> Skip | str | tuple[Format, ...]:
    item, known = look.item, look.known
    if look.skip is not None:
        return look.skip
    if look.refused is not None:
        return look.refused
    if known is not None:
        if item.letter is not None and not _has_identity(parts, item):
            return OTHER_EVENT
        return Skip.SELECTED_TWICE if met.again(f"pk {known.event_pk}") else decide(known, request)
    if item.decoded is None:
        return "it is not in the ledger any more"
    event = item.decoded.event
    wanted = decide_new(event, request, parts.run_defaults)
    if isinstance(wanted, Skip):
        return wanted
    return Skip.SELECTED_TWICE if met.again(*_names(event)) else wanted


def _names(event: Event) -> list[str]:
    names = [f"event {event.source}\n{event.event_id}"]
    return names if event.scan is None else [*names, f"scan {event.scan.scan_id}"]


def _has_identity(parts: Wiring, item: Item) -> bool:
    if item.decoded is None:
        return False
    with parts.ledger.read() as connection:
        return has_identity(connection, item.decoded.event)


def _run_of(parts: Wiring, look: Look) -> Run:
    """The run that would be made, as far as what it tells depends on it."""
    if look.known is not None:
        with parts.ledger.read() as connection:
            run_id = newest_run(connection, look.known.event_pk)
            if run_id is None:
                raise NotFound(f"the runs of event {look.known.event_pk} have been deleted")
            return replace(load_run(connection, run_id), tells=True)
    assert look.item.decoded is not None  # noqa: S101 - _decide has seen to it
    event, now = look.item.decoded.event, parts.clock()
    with parts.ledger.read() as connection:
        inputs = foresee_inputs(connection, event, parts.run_defaults, now)
    digest = hashlib.sha256(event.data).hexdigest()
    return Run(
        run_id=f"foreseen {digest}",
        attempt=1,
        state=RunState.RECORDED,
        formats=(),
        inputs=inputs,
        scan_id=None if event.scan is None else str(event.scan.scan_id),
        event_pk=0,
        event_type=event.type,
        source=event.source,
        event_id=event.event_id,
        subject=event.domain,
        user_id=event.userid,
        occurred_at=(event.scan.finished_at if event.scan else None) or event.time or now,
        dataref=event.dataref,
        traceparent=event.traceparent,
        data=event.data,
        data_sha256=digest,
        superseded=False,
    )


def _foresee_told(parts: Wiring, run: Run, known: Known | None, forecast: Forecast) -> None:
    news = foresee_news(parts, run) if run.data else []
    now = parts.clock()
    with parts.ledger.read() as connection:
        if known is not None:
            news += violations_told(connection, known.event_pk, news)
        disabled = disabled_endpoints(connection)
        for subscriber, wanted in match_subscribers(connection, news, run.user_id, parts.box):
            told = forecast.told.setdefault(subscriber.subscriber_id, Told())
            told.notifications += len(wanted)
            for item in wanted:
                for recipient in recipients(subscriber, item, now, disabled):
                    if recipient.suppressed is not None:
                        told.suppressed += 1
                    elif recipient.hold is not None:
                        told.held += 1
                    else:
                        told.at_once += 1
