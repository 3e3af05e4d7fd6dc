"""What is odd about a scan beside the earlier ones of its domain: the facts of an anomaly.

A look at the ledger before the body settles the run.  The run's frozen inputs
say which scans are the earlier ones, so a scan that arrives late changes
nothing here.  Their bytes are those of today: if one was sent again meanwhile,
its later word counts, and a score that was not there yet when the run was
recorded is asked for again.  Otherwise a replay finds what the first run found;
either way the anomaly's event key is that of the scan, and is told once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compliance.assess import Bounds
from compliance.oddities import (
    Key,
    hosts_of,
    keys_in,
    list_added,
    list_newcomers,
    list_removed,
)
from schemas.errors import InvalidEvent
from schemas.notifications import Fact
from schemas.reports import HistoryPoint, Report
from schemas.runs import Run
from schemas.scans import decode_scan
from store.earlier_scans import find_scans
from store.events import read_payload
from tasks.comparing import frozen_events
from tasks.derive import whole
from tasks.wiring import Wiring

NAMED = 5
"""Names that a fact gives beside its number."""
MAX_NAME_BYTES = 60


def find_oddities(parts: Wiring, run: Run, report: Report) -> list[Fact]:
    """The facts that pass their thresholds; empty where nothing is odd.

    An inconclusive scan has none: what it did not see says nothing.  Reads a few
    earlier scans where their numbers could pass, one at a time.  Raises
    LedgerUnavailable.
    """
    if report.inconclusive:
        return []
    past = _Past(parts, run, report)
    return [
        *_new_cookies(parts, report, past),
        *_removed_cookies(parts, report, past),
        *_new_third_parties(parts, report, past),
        *_score_drop(parts, report, past),
    ]


class _Past:
    """The earlier scans of a run's domain that say something of this one; the latest is number 1.

    Without a score a scan counts only where it saw about as much as the one after it:
    then it bears that one out, or is not judged yet.  Else it may have seen a block page.
    """

    def __init__(self, parts: Wiring, run: Run, report: Report) -> None:
        self._parts = parts
        self._run = run
        points = list(reversed(run.inputs.history))
        with parts.ledger.read() as connection:
            self._found = find_scans(connection, [point.scan_id for point in points])
        self._ids: list[str] = []
        seen = len(report.cookies)
        for point in points:
            compared = point.scan_id == report.drift.compared_with
            count = self._cookies_of(point.scan_id)
            if compared or self._score(point) is not None or 2 * count >= seen:
                self._ids.append(point.scan_id)
                seen = count
        compared_with = report.drift.compared_with
        self.compared = 1 + self._ids.index(compared_with) if compared_with in self._ids else 0
        """The number of the scan that the report compares with; 0 where it lies further back."""
        self._keys: dict[int, frozenset[Key]] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def _score(self, point: HistoryPoint) -> int | None:
        known = self._found.get(point.scan_id)
        return known.score if point.score is None and known else point.score

    def _cookies_of(self, scan_id: str) -> int:
        known = self._found.get(scan_id)
        return 0 if known is None else known.cookie_count

    def scores(self) -> Iterator[int]:
        """Scores from the latest back, without scans that have none."""
        for point in reversed(self._run.inputs.history):
            score = self._score(point)
            if score is not None:
                yield score

    def cookie_count(self, number: int) -> int:
        """How many cookies a scan has, without reading it; 0 for one that is not there."""
        return self._cookies_of(self._ids[number - 1]) if number <= len(self) else 0

    def keys(self, number: int) -> frozenset[Key]:
        """The cookies of a scan; none for one that is not there or cannot be read any more."""
        if number > self.compared + 1:  # asked for once, and there may be many
            return self._read(number)
        if number not in self._keys:
            self._keys[number] = self._read(number)
        return self._keys[number]

    def _read(self, number: int) -> frozenset[Key]:
        event_pk = self._event_pk(number)
        if event_pk is None:
            return frozenset()
        with self._parts.ledger.read() as connection:
            data = read_payload(connection, event_pk)
        settings = self._parts.settings
        try:
            bounds = Bounds(settings.max_cookies, settings.max_string_bytes)
            return frozenset() if data is None else keys_in(decode_scan(data), bounds)
        except InvalidEvent:  # recorded by a release that took what this one does not
            return frozenset()

    def _event_pk(self, number: int) -> int | None:
        if number > len(self):
            return None
        scan_id = self._ids[number - 1]
        if number == self.compared:  # the very bytes that the report compares with
            frozen = frozen_events(self._run.inputs, self._run.occurred_at)
            return next((item.event_pk for item in frozen if item.scan_id == scan_id), None)
        known = self._found.get(scan_id)
        return None if known is None else known.event_pk


def _new_cookies(parts: Wiring, report: Report, past: _Past) -> Iterator[Fact]:
    least = parts.settings.anomaly_added_cookies
    if len(report.drift.added) < least:
        return
    added = list_added(report, past.keys(past.compared + 1))
    if len(added) >= least:
        yield Fact(label="new_cookies", value=_numbered([name for name, _, _ in added]))


def _removed_cookies(parts: Wiring, report: Report, past: _Past) -> Iterator[Fact]:
    least = parts.settings.anomaly_removed_cookies
    older = max(2, past.compared)  # the scans since bear out what this one misses
    if report.drift.compared_with is None or past.cookie_count(older) < least:
        return
    removed = list_removed(report, past.keys(1), past.keys(older))
    if len(removed) >= least:
        yield Fact(label="removed_cookies", value=_numbered([name for name, _, _ in removed]))


def _new_third_parties(parts: Wiring, report: Report, past: _Past) -> Iterator[Fact]:
    least = parts.settings.anomaly_new_third_parties
    if report.drift.compared_with is None:
        return
    newcomers = list_newcomers(report)
    for number in range(past.compared + 1, len(past) + 1):
        if len(newcomers) < least:
            return
        known = hosts_of(past.keys(number))
        newcomers = [host for host in newcomers if host not in known]
    if len(newcomers) >= least:
        yield Fact(label="new_third_parties", value=_numbered(newcomers))


def _score_drop(parts: Wiring, report: Report, past: _Past) -> Iterator[Fact]:
    before, score = next(past.scores(), None), report.score.value
    if before is None or score is None:
        return
    if before - score >= parts.settings.anomaly_score_drop:
        yield Fact(label="score_change", value=f"{before} → {score}")


def _numbered(names: Sequence[str]) -> str:
    """How many, and the first of them: a reader of any language sees what it is about."""
    shown = [whole(name, MAX_NAME_BYTES) for name in dict.fromkeys(names) if name.strip()][:NAMED]
    more = ["…"] if len(names) > len(shown) else []
    return f"{len(names)} ({', '.join(shown + more)})" if shown else str(len(names))
