"""A replay's driver: select, record runs of a step with the checkpoint, dispatch, keep the pace.

A step is one transaction: the new runs, the events that were not known, the
dead letters that are none any more, the counts and the checkpoint.  Then its
runs are dispatched, at low priority.  Killed before the commit, the step is
selected again; killed after it, the sweep dispatches what was not.  Of one
replay an event has one run, by a unique row, so a resumed replay makes nothing
twice whatever its checkpoint says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from listener.replay_items import Item, Position, Source
from listener.replay_looks import OTHER_EVENT, Look, look_at
from listener.replay_rules import decide, decide_new
from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable, LedgerUnavailable, PermanentError
from schemas.events import Event
from schemas.replays import Failure, Replay, ReplayState, Skip
from schemas.reports import Format
from schemas.runs import RunTicket
from schemas.settings import Settings
from store import replays
from store.events import record_for_replay
from store.ledger import first_line
from store.letters import refuse_again, remove_letter
from store.replayed import has_identity, insert_replay_run
from store.runs import mark_dispatched
from tasks.wiring import Wiring

log = structlog.get_logger("listener.replay")

LOOK_EVERY_S = 0.1
"""How long it waits before it asks again whether its runs are settled."""

TOUCH_EVERY_S = 5.0
"""How often it says that it lives, while it waits."""

RATE_SPREAD_S = 0.2
"""A rate is kept in portions of so long."""

MAX_WIDTH = 200
"""Items that one step looks at: so long, other writers of a SQLite ledger wait."""

LEDGER_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""How long a ledger that is away is waited for, in all; then the replay can be resumed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is.  ``fraction`` is that of its source; ``failures`` are the newest."""

    replay: Replay
    fraction: float
    in_flight: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class _Step:
    """One transaction: the replay after it, its runs, and how many items it took."""

    replay: Replay
    tickets: tuple[RunTicket, ...]
    taken: int
    failures: tuple[Failure, ...]


def most_in_flight(settings: Settings) -> int:
    """Runs of replays that may be unfinished at once: half of what listeners stop reading for."""
    return max(1, settings.reports_high_water // (2 * len(Format)))


class TakenOver(PermanentError):
    """Another process resumed this replay and goes on with it, or it was cancelled."""


class Driver:
    """Moves one replay on, from its checkpoint to its end.

    ``dispatch`` publishes runs, ``show`` is told after each step and while waiting.
    """

    def __init__(
        self,
        parts: Wiring,
        replay: Replay,
        source: Source,
        dispatch: Callable[[Iterable[RunTicket]], None],
        show: Callable[[Progress], None],
    ) -> None:
        self._parts = parts
        self.replay = replay
        self._source = source
        self._dispatch = dispatch
        self._show = show
        self._in_flight = replay.request.in_flight  # so the first look is a real one
        self._width = replay.request.in_flight  # items of one step
        self._next_run_at = self._touch_at = parts.monotonic()

    def run(self) -> None:
        """Record and dispatch all that is selected, then wait until it is settled.

        One that had all recorded before is only waited for.  Raises TakenOver,
        LedgerUnavailable, StreamUnavailable: all but the first leave a replay that
        can be resumed, as does KeyboardInterrupt.
        """
        try:
            if self.replay.state is not ReplayState.DONE:
                self._select()
        except KeyboardInterrupt:
            self._end(ReplayState.INTERRUPTED, "interrupted")
            raise
        except TakenOver:
            raise
        except BaseException as error:
            self._end(ReplayState.FAILED, f"{type(error).__name__}: {error}")
            raise
        self._end(ReplayState.DONE, None)
        while self._look():
            self._parts.sleep(LOOK_EVERY_S)

    def _select(self) -> None:
        for page in self._source.pages(self.replay.checkpoint):
            waiting = deque(page.items)
            while waiting:
                items = list(islice(waiting, self._width))
                whole = len(items) == len(waiting)
                for _ in range(self._take(items, page.position if whole else items[-1].position)):
                    waiting.popleft()
            if not page.items:  # nothing to record: a resumed replay walks it again
                self.replay = replace(self.replay, checkpoint=page.position)
                self._report(())

    def _take(self, items: Sequence[Item], behind: Position) -> int:
        """One step: as many items as there is room for runs; returns how many it took."""
        room = self._wait_for_room()
        try:
            step = self._record(items, room, behind)
        except SQLAlchemyError as error:
            if len(items) > 1:  # one of them is refused: find out which
                return self._take(items[:1], items[0].position)
            log.exception("item_refused", replay_id=self.replay.replay_id, item=items[0].name)
            refused = replace(
                items[0],
                event_pk=None,
                decoded=None,
                refused=f"the ledger refuses it: {first_line(error)}",
            )
            step = self._record([refused], room, behind)
        self.replay = step.replay
        self._in_flight += len(step.tickets)
        # Where most are skipped a step may look at many; where few are, not at more than it starts.
        wider = len(step.tickets) < room and step.taken == len(items)
        self._width = min(MAX_WIDTH, self._width * 2) if wider else max(1, len(step.tickets))
        if self.replay.request.rate:
            now = max(self._parts.monotonic(), self._next_run_at)
            self._next_run_at = now + len(step.tickets) / self.replay.request.rate
        self._start(step.tickets)
        self._report(step.failures)
        return step.taken

    def _record(self, items: Sequence[Item], room: int, behind: Position) -> _Step:
        """Write a step, waiting a while for a ledger that is away.

        A connection that is lost during its commit leaves open whether it was
        written; the step's number then tells.
        """
        for pause in (*LEDGER_PAUSES_S, None):
            step: _Step | None = None
            try:
                with self._parts.ledger.write() as connection:
                    step = self._write(connection, items, room, behind)
                    crash_here(CrashPoint.REPLAY_COMMITTING)
                crash_here(CrashPoint.REPLAY_RECORDED)
                return step
            except LedgerUnavailable as error:
                if pause is None:
                    raise
                log.warning("ledger_unavailable", error=str(error))
                self._parts.sleep(pause)
                if step is not None and self._is_written(step):
                    return step
        raise AssertionError("the last pause is none")

    def _is_written(self, step: _Step) -> bool:
        try:
            with self._parts.ledger.read() as connection:
                now = replays.load_replay(connection, step.replay.replay_id)
        except LedgerUnavailable:
            return False  # then the next write cannot succeed either, or finds another step
        return (now.driver, now.step) == (step.replay.driver, step.replay.step)

    def _write(
        self, connection: Connection, items: Sequence[Item], room: int, behind: Position
    ) -> _Step:
        counts = deepcopy(self.replay.counts)
        tickets: list[RunTicket] = []
        failures: list[Failure] = []
        taken = 0
        seen: set[int | UUID] = set()
        for look in look_at(connection, items, self.replay.replay_id):
            if len(tickets) >= room:
                break
            taken += 1
            counts.selected += 1
            match self._settle(connection, look, seen):
                case RunTicket() as ticket:
                    tickets.append(ticket)
                    counts.started += 1
                    counts.new += look.known is None
                case Skip() as reason:
                    counts.skip(reason)
                case str() as reason:
                    counts.failed += 1
                    failures.append(Failure(look.item.name, reason))
        checkpoint = behind if taken == len(items) else items[taken - 1].position
        moved = replays.advance(
            connection,
            self.replay,
            checkpoint=checkpoint,
            counts=counts,
            failures=[*self.replay.failures, *failures],
            now=self._parts.clock(),
        )
        if not moved:
            now = replays.load_replay(connection, self.replay.replay_id)
            raise TakenOver(
                f"replay {now.replay_id} was cancelled"
                if now.state is ReplayState.CANCELLED
                else f"replay {now.replay_id} was resumed by another process, which goes on"
            )
        replay = replace(
            self.replay,
            step=self.replay.step + 1,
            checkpoint=checkpoint,
            counts=counts,
            failures=(*self.replay.failures, *failures)[: replays.FAILURES_KEPT],
        )
        return _Step(replay, tuple(tickets), taken, tuple(failures))

    def _settle(
        self, connection: Connection, look: Look, seen: set[int | UUID]
    ) -> RunTicket | Skip | str:
        """What becomes of one item: a run, or why there is none."""
        item, known = look.item, look.known
        if look.skip is not None:
            return look.skip
        if look.refused is not None:
            return self._refuse(connection, item, look.refused)
        if known is not None:
            if item.letter is not None and item.decoded is not None:
                if not has_identity(connection, item.decoded.event):
                    return self._refuse(connection, item, OTHER_EVENT)
                remove_letter(connection, item.letter)
            if known.event_pk in seen:  # its run is younger than our look
                return Skip.SELECTED_TWICE
            seen.add(known.event_pk)
            wanted = decide(known, self.replay.request)
            if isinstance(wanted, Skip):
                return wanted
            ticket = insert_replay_run(connection, known, wanted, **self._new_run())
            return ticket or Skip.SELECTED_TWICE
        if item.decoded is None:
            return self._refuse(connection, item, "it is not in the ledger any more")
        event = item.decoded.event
        if event.scan is not None:
            if event.scan.scan_id in seen:  # an earlier item of this step brought it
                return Skip.SELECTED_TWICE
            seen.add(event.scan.scan_id)
        return self._record_new(connection, item, event)

    def _record_new(self, connection: Connection, item: Item, event: Event) -> RunTicket | Skip:
        """RECORD an event that the ledger does not know, in place of its dead letter if it is one.

        One that it has got to know since our look was selected twice.
        """
        wanted = decide_new(event, self.replay.request, self._parts.run_defaults)
        if isinstance(wanted, Skip) or item.decoded is None:
            return wanted if isinstance(wanted, Skip) else Skip.UNKNOWN
        ticket = record_for_replay(
            connection,
            item.decoded,
            formats=wanted,
            defaults=self._parts.run_defaults,
            **self._new_run(),
        )
        if item.letter is not None:
            remove_letter(connection, item.letter)
        return ticket or Skip.SELECTED_TWICE

    def _refuse(self, connection: Connection, item: Item, reason: str) -> str:
        if item.letter is not None:
            refuse_again(connection, item.letter, reason)
        return reason

    def _new_run(self) -> dict[str, Any]:
        now = self._parts.clock()
        return {
            "replay_id": self.replay.replay_id,
            "now": now,
            "dispatch_by": now + timedelta(seconds=self._parts.settings.starting_grace_s),
            "new_id": self._parts.new_id,
        }

    def _start(self, tickets: Sequence[RunTicket]) -> None:
        """Dispatch what was recorded.  What cannot be is left to the sweep, with a warning."""
        if not tickets:
            return
        try:
            self._dispatch(tickets)
            crash_here(CrashPoint.REPLAY_DISPATCHED)
            deadline = self._parts.clock() + timedelta(seconds=self._parts.settings.run_deadline_s)
            with self._parts.ledger.write() as connection:
                mark_dispatched(connection, tickets, deadline)
        except (BrokerUnavailable, LedgerUnavailable) as error:
            log.warning("dispatch_left_to_sweep", runs=len(tickets), error=str(error))

    def _wait_for_room(self) -> int:
        """Wait until there is room for runs, by the cap and by the rate; returns for how many."""
        request = self.replay.request
        while (wait := self._next_run_at - self._parts.monotonic()) > 0:
            self._parts.sleep(min(wait, TOUCH_EVERY_S))
            self._touch()
        enough = request.in_flight - max(1, request.in_flight // 4)  # not a step for every run
        while self._in_flight > enough and self._look() > enough:
            self._parts.sleep(LOOK_EVERY_S)
        while (room := min(request.in_flight - self._in_flight, self._room_of_all())) < 1:
            self._parts.sleep(LOOK_EVERY_S)
            self._look()
        at_once = max(1, int(request.rate * RATE_SPREAD_S)) if request.rate else room
        return min(room, at_once)

    def _room_of_all(self) -> int:
        """Runs that may still be started of all replays together.

        Half of what closes the intake is theirs, or some replays at once would keep
        live scans in the stream.  Two that ask at the same moment may both start.
        """
        with self._parts.ledger.read() as connection:
            return most_in_flight(self._parts.settings) - replays.count_unsettled(connection)

    def _look(self) -> int:
        """Ask how many runs of this replay are not settled."""
        with self._parts.ledger.read() as connection:
            self._in_flight = replays.count_in_flight(connection, self.replay.replay_id)
        self._touch()
        self._report(())
        return self._in_flight

    def _touch(self) -> None:
        now = self._parts.monotonic()
        if now < self._touch_at:
            return
        self._touch_at = now + TOUCH_EVERY_S
        with self._parts.ledger.write() as connection:
            replays.touch(connection, self.replay, self._parts.clock())

    def _report(self, failures: tuple[Failure, ...]) -> None:
        done = self.replay.state is ReplayState.DONE
        fraction = 1.0 if done else self._source.fraction(self.replay.checkpoint)
        self._show(Progress(self.replay, fraction, self._in_flight, failures))

    def _end(self, state: ReplayState, reason: str | None) -> None:
        """Note how it ended; where the ledger is away, its row says running, and is resumed too."""
        try:
            with self._parts.ledger.write() as connection:
                replays.end_replay(connection, self.replay, state, reason, self._parts.clock())
        except LedgerUnavailable as error:
            log.warning("end_not_noted", replay_id=self.replay.replay_id, error=str(error))
            return
        self.replay = replace(self.replay, state=state, reason=reason)
