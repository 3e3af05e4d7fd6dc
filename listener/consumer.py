"""The listener's loop: read, decode, RECORD, dispatch, acknowledge.

Nothing is acknowledged before the transaction that recorded it has committed.
Killed anywhere before that, an entry stays pending and is read again; killed
after it, the entry is read again as a repeat, and a run that was never
dispatched is, by the repeat or by the sweep.  Dispatch follows RECORD at once;
acknowledgements ride with the next read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from listener.backpressure import Backpressure
from listener.decode import decode_batch
from listener.meter import Meter
from listener.stream import EventStreams
from listener.traced import begin_record
from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable, LedgerUnavailable, StreamUnavailable, TransientError
from schemas.runs import DeadEntry, Entry, RunTicket
from store import events, runs
from store.deliveries import DeliveryTicket
from store.heartbeats import HOLDS_S
from store.ledger import first_line
from tasks.alerts import alert_dead_letters
from tasks.heart import MIGRATION_S, Heart
from tasks.notifications import start_deliveries
from tasks.wiring import Wiring

log = structlog.get_logger("listener")

Result = TypeVar("Result")

CLOSED_PAUSE_S = 0.2
"""How long the loop waits before it asks again whether workers have caught up."""

WAITS_FOR = {"ledger": "the ledger", "stream": "redis"}

LOOKS = 3
"""How often a suspect is looked at alone before it is left dead."""


class Listener:
    """One consumer.

    ``dispatch`` publishes the chords of recorded runs, ``queue_depth`` tells how
    many report tasks wait for a worker.  ``heart`` is told whenever the loop comes round;
    ``meter`` counts what it does.
    """

    def __init__(
        self,
        streams: EventStreams,
        parts: Wiring,
        dispatch: Callable[[Iterable[RunTicket]], None],
        queue_depth: Callable[[], int],
        stop: threading.Event,
        heart: Heart,
        meter: Meter | None = None,
    ) -> None:
        self._heart = heart
        self._streams = streams
        self._parts = parts
        self._settings = parts.settings
        self._dispatch = dispatch
        self._stop = stop
        self._meter = meter or Meter()
        self._to_ack: list[Entry] = []
        # One entry first, whatever it weighs: killed for memory by a batch of large ones, the
        # next start must not read the same batch.  The first batch's bytes tell how to go on.
        self._count = 1
        self._next_claim = parts.monotonic()
        self._next_housekeeping = parts.monotonic() + parts.settings.housekeeping_s
        self._backpressure = Backpressure(
            queue_depth,
            parts.settings.reports_high_water,
            parts.settings.low_water,
            parts.monotonic,
        )

    def run(self) -> None:
        """Consume until ``stop`` is set; then finish the batch in hand and acknowledge it.

        A ledger or a Redis that is away is waited for, with jitter, and reported once.
        """
        self._note_turn()
        self._patiently("ledger", self._parts.ledger.migrate, holds_s=MIGRATION_S)
        log.info(
            "listener_started", streams=list(self._streams.streams), consumer=self._streams.consumer
        )
        while not self._stop.is_set():
            self._patiently("stream", self._connect)
            try:
                while not self._stop.is_set():
                    self._turn()
            except StreamUnavailable as error:
                log.warning("stream_lost", error=str(error))
        self._patiently("stream", self._acknowledge)
        self._streams.close()
        self._heart.stop()
        log.info("listener_stopped")

    def _connect(self) -> None:
        """Join the groups, then take first what was given to us before and never finished."""
        self._streams.ensure_groups()
        self._acknowledge()
        after: dict[str, str] = {}
        suspects: list[Entry] = []
        while not self._stop.is_set():
            self._heart.beat()
            entries = self._streams.read_own_pending(after, self._count)
            if not entries:
                break
            for entry in entries:
                after[entry.stream] = entry.entry_id
            suspects += self._take_unsuspected(entries)
            self._acknowledge()
        for entry in suspects:  # last: one that kills us must not hold up the others
            self._heart.beat()
            self._take_suspect(entry)
            self._acknowledge()

    def _turn(self) -> None:
        self._note_turn()
        self._heart.beat()  # a dispatch may have been slow, and so may the answer of a sick broker
        is_closed = self._backpressure.closed()
        self._meter.backpressure.set(is_closed)
        if is_closed:
            self._heart.beat(waits_for="workers")
            self._acknowledge()
            self._stop.wait(CLOSED_PAUSE_S)
            return
        self._heart.beat()
        if self._parts.monotonic() >= self._next_housekeeping:
            self._keep_house()
        if self._parts.monotonic() >= self._next_claim:
            idle = self._streams.claim_idle(
                self._settings.claim_idle_ms,
                self._settings.batch_entries,
                self._settings.batch_bytes,
            )
            if not idle:  # while there is something, the next turn claims on
                self._next_claim = self._parts.monotonic() + self._settings.claim_idle_ms / 2000
            else:
                log.info("entries_claimed", entries=len(idle))
                for entry in self._take_unsuspected(idle):
                    self._take_suspect(entry)
        entries = self._streams.read_new(self._count, self._to_ack)
        self._to_ack = []
        if entries:
            self._take(entries)

    def _keep_house(self) -> None:
        """Trim what is finished and forget dead consumers.  Its failure must not stop intake."""
        self._next_housekeeping = self._parts.monotonic() + self._settings.housekeeping_s
        try:
            removed = self._streams.remove_idle_consumers(self._settings.consumer_idle_s)
            trimmed = self._streams.trim(self._settings.stream_retention_s)
        except StreamUnavailable as error:
            log.warning("housekeeping_failed", error=str(error))
            return
        if removed or trimmed:
            log.info("house_kept", consumers_removed=removed, entries_trimmed=trimmed)

    def _take(self, entries: Sequence[Entry]) -> None:
        """Decode, RECORD, dispatch; then the entries may be acknowledged."""
        crash_here(CrashPoint.LISTENER_READ)
        self._note_turn()
        self._meter.read.inc(len(entries))
        size = sum(entry.weight for entry in entries)
        aimed = self._settings.batch_bytes * len(entries) // max(1, size)
        self._count = max(1, min(self._settings.batch_entries, aimed))
        try:
            recorded = self._patiently("ledger", lambda: self._record(entries))
        except SQLAlchemyError:
            # The ledger answers but refuses this batch: find out which entry it is.
            log.exception("batch_refused", entries=len(entries))
            for entry in entries:
                self._take_alone(entry)
            return
        if recorded is None:
            return  # stopped while the ledger was away: the entries stay pending
        self._to_ack += entries
        log.info(
            "batch_recorded",
            entries=len(entries),
            new=recorded.new,
            repeats=recorded.repeats,
            dead=recorded.dead,
        )
        self._start(recorded.tickets)

    def _take_unsuspected(self, entries: Sequence[Entry]) -> list[Entry]:
        """Take entries that came back; returns those that came back often, to be taken alone.

        Deliveries rise in an outage too, so a count alone condemns nobody.
        """
        counts = self._streams.deliveries_of(entries)
        limit = self._settings.poison_deliveries
        suspects = [
            entry for entry in entries if counts.get((entry.stream, entry.entry_id), 0) >= limit
        ]
        others = [entry for entry in entries if entry not in suspects]
        if others:
            self._take(others)
        return suspects

    def _take_suspect(self, entry: Entry) -> None:
        """Bury first, then look: if looking kills this process, the entry is dead already.

        A suspect that proves sound is exhumed in the transaction that records it;
        one that was buried and not exhumed several times had killed us, and stays.
        Once is no proof: a stop or an outage in between looks the same.
        """
        reason = (
            f"set aside after {self._settings.poison_deliveries} deliveries: "
            f"the listener died {LOOKS} times when it looked at this entry alone"
        )
        look = self._patiently("ledger", lambda: self._bury(entry, reason))
        if look is None:
            return
        self._meter.read.inc()
        log.warning("suspect_taken", stream=entry.stream, entry_id=entry.entry_id, look=look)
        if look > LOOKS:
            self._to_ack.append(entry)
            self._patiently("ledger", lambda: self._alert(DeadEntry(entry, reason)))
            return
        self._take_alone(entry, exhume=True)

    def _take_alone(self, entry: Entry, *, exhume: bool = False) -> None:
        """RECORD one entry; one that the ledger refuses is buried."""
        crash_here(CrashPoint.LISTENER_READ)
        try:
            recorded = self._patiently("ledger", lambda: self._record([entry], exhume=exhume))
        except SQLAlchemyError as error:
            log.exception("entry_refused", stream=entry.stream, entry_id=entry.entry_id)
            reason = f"the ledger refuses it: {first_line(error)}"
            if self._patiently("ledger", lambda: self._bury(entry, reason)) is not None:
                self._to_ack.append(entry)
                self._patiently("ledger", lambda: self._alert(DeadEntry(entry, reason)))
            return
        if recorded is not None:
            self._to_ack.append(entry)
            self._start(recorded.tickets)

    def _record(self, entries: Sequence[Entry], *, exhume: bool = False) -> events.BatchRecord:
        """The transaction that takes over the promise."""
        began = self._parts.monotonic()
        decoded, dead = decode_batch(entries, max_bytes=self._settings.max_entry_bytes)
        now = self._parts.clock()
        decoded, spans = begin_record(self._parts.tracer, decoded, now)
        alerts: list[DeliveryTicket] = []
        with self._parts.ledger.write() as connection:
            if exhume:
                for entry in entries:
                    events.exhume(connection, entry)
            # recorded, then trimmed before its acknowledgement: nothing is lost
            dead = [
                letter
                for letter in dead
                if letter.entry.fields or not events.is_known(connection, letter.entry)
            ]
            recorded = events.record_batch(
                connection,
                decoded,
                dead,
                defaults=self._parts.run_defaults,
                now=now,
                dispatch_by=now + timedelta(seconds=self._settings.starting_grace_s),
                new_id=self._parts.new_id,
            )
            alerts = alert_dead_letters(connection, self._parts, dead)
            crash_here(CrashPoint.LISTENER_COMMITTING)
        crash_here(CrashPoint.LISTENER_RECORDED)
        self._meter.batch_seconds.observe(self._parts.monotonic() - began)
        self._meter.recorded(new=recorded.new, repeats=recorded.repeats, dead=recorded.dead)
        for span in spans:
            span.end()
        self._send(alerts)
        for letter in dead:
            log.warning(
                "entry_dead",
                stream=letter.entry.stream,
                entry_id=letter.entry.entry_id,
                reason=letter.reason[:500],
            )
        return recorded

    def _bury(self, entry: Entry, reason: str) -> int:
        with self._parts.ledger.write() as connection:
            return events.bury(connection, DeadEntry(entry, reason), self._parts.clock())

    def _alert(self, letter: DeadEntry) -> None:
        with self._parts.ledger.write() as connection:
            alerts = alert_dead_letters(connection, self._parts, [letter])
        self._meter.recorded(dead=1)
        self._send(alerts)

    def _start(self, tickets: Sequence[RunTicket]) -> None:
        """Dispatch what was recorded.  What cannot be is left to the sweep, with a warning."""
        if not tickets:
            return
        try:
            self._backpressure.published(sum(len(ticket.formats) for ticket in tickets))
            began = self._parts.monotonic()
            self._dispatch(self._beating(tickets))
            self._meter.dispatch_seconds.observe(self._parts.monotonic() - began)
            crash_here(CrashPoint.LISTENER_DISPATCHED)
            deadline = self._parts.clock() + timedelta(seconds=self._settings.run_deadline_s)
            with self._parts.ledger.write() as connection:
                runs.mark_dispatched(connection, tickets, deadline)
        except (BrokerUnavailable, LedgerUnavailable) as error:
            log.warning("dispatch_left_to_sweep", runs=len(tickets), error=str(error))
            return
        crash_here(CrashPoint.LISTENER_MARKED)
        log.info("runs_dispatched", runs=len(tickets))

    def _beating(self, tickets: Sequence[RunTicket]) -> Iterator[RunTicket]:
        """A beat for each: a broker that is slow to answer is slow for every one of them."""
        for ticket in tickets:
            self._heart.beat()
            yield ticket

    def _send(self, alerts: Sequence[DeliveryTicket]) -> None:
        try:
            start_deliveries(alerts)
        except BrokerUnavailable as error:
            log.warning("alerts_left_to_sweep", error=str(error))

    def _note_turn(self) -> None:
        self._meter.last_turn.set(self._parts.clock().timestamp())

    def _acknowledge(self) -> None:
        self._streams.ack(self._to_ack)
        self._to_ack = []

    def _patiently(
        self, what: str, work: Callable[[], Result], holds_s: float = HOLDS_S
    ) -> Result | None:
        """Do ``work``, again and again while it fails for a passing reason.

        None if the listener was told to stop meanwhile.  Says once that it
        waits and once that the wait is over.  One try may take ``holds_s``.
        """

        waits_for: str | None = None

        def wait(state: RetryCallState) -> None:
            nonlocal waits_for
            waits_for = WAITS_FOR[what]
            _say_once(what, state)
            self._heart.beat(waits_for)

        def attempt() -> Result:
            self._heart.beat(waits_for, holds_s)
            return work()

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=wait,
        )
        try:
            result = retrying(attempt)
        except RetryError as error:
            log.warning("stopped_while_waiting", on=what, error=str(error.last_attempt.exception()))
            return None
        if retrying.statistics.get("attempt_number", 1) > 1:
            log.info(f"{what}_back", attempts=retrying.statistics["attempt_number"])
        return result


def _say_once(what: str, state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning(f"{what}_unavailable", error=str(state.outcome.exception()))
