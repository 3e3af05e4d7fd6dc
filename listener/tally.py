"""Counters made from the ledger's rows: each row counted once, from the exporter's start on.

An exporter sees no worker's memory, but the ledger has a row for every report and
every try.  Counted as they appear, they make true counters: cleanup deletes rows
and takes nothing back, and a restart begins at zero, which Prometheus expects.
What sums of the rows there are would give is no counter: it falls with cleanup.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate

from sqlalchemy import Connection, RowMapping

from schemas.metrics import DELIVERY_SECONDS, RENDER_SECONDS
from schemas.notifications import ChannelKind
from schemas.reports import Format
from store.gauges import EndedCounts, attempts_after, count_ended, newest_attempt, renderings_since

WINDOW = timedelta(minutes=15)
"""A report is looked for so long after its rendering was first begun; later it is not counted."""

LATE = timedelta(seconds=60)
"""A row may appear so long after the time, or the number, it was given before its commit."""

ENDED_EVERY = timedelta(minutes=1)

ATTEMPT_OUTCOMES = ("sent", "retry", "failed")


@dataclass
class Timings:
    """A histogram: observations per bucket, and their sum in seconds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds

    @property
    def cumulative(self) -> list[tuple[str, float]]:
        """Buckets as Prometheus has them: upper bound, observations up to it."""
        names = [*(f"{bound}" for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(map(float, self.counts)), strict=True))


class _Seen:
    """Rows that were counted, for as long as a look may meet them again."""

    def __init__(self) -> None:
        self._keys: set[Hashable] | None = None

    def news(self, rows: Mapping[Hashable, RowMapping]) -> list[RowMapping]:
        """Rows, by key, that are new; of the very first look none, for they are of before."""
        known, self._keys = self._keys, set(rows)  # what fell out of the window is forgotten
        return [] if known is None else [row for key, row in rows.items() if key not in known]


class Tally:
    """What was counted so far: every format and channel from zero on, so that none appears late.

    Looks come one after the other; reading meanwhile is harmless.
    """

    def __init__(self) -> None:
        self.renders = {name.value: Timings(RENDER_SECONDS.buckets) for name in Format}
        self.render_failures = {name.value: 0 for name in Format}
        self.sends = {kind.value: Timings(DELIVERY_SECONDS.buckets) for kind in ChannelKind}
        self.attempts = {
            (kind.value, outcome): 0 for kind in ChannelKind for outcome in ATTEMPT_OUTCOMES
        }
        self.ended: EndedCounts | None = None
        self._ended_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._reports = _Seen()
        self._tries = _Seen()
        self._newest: deque[tuple[datetime, int]] = deque()
        """The newest try by the time of the look: the first one is the youngest that is too old
        for another to appear before it."""

    def look(self, connection: Connection, now: datetime) -> None:
        """Count what is new since the last look."""
        before = self._looked_at or now
        self._looked_at = now
        self._count_reports(renderings_since(connection, before - WINDOW, before - LATE))
        self._count_tries(attempts_after(connection, self._surely_counted(connection, now)))
        if self._ended_at is None or now - self._ended_at >= ENDED_EVERY:
            self.ended, self._ended_at = count_ended(connection), now

    def _surely_counted(self, connection: Connection, now: datetime) -> int:
        """The key up to which every try was met by an earlier look."""
        self._newest.append((now, newest_attempt(connection)))
        while len(self._newest) > 1 and self._newest[1][0] <= now - LATE:
            self._newest.popleft()
        # the smallest: SQLite gives keys again whose rows were deleted from the end
        return min(key for _, key in self._newest)

    def _count_reports(self, rows: Sequence[RowMapping]) -> None:
        settled: dict[Hashable, RowMapping] = {
            (row["report_id"], row["run_id"], row["status"]): row for row in rows
        }
        for row in self._reports.news(settled):
            if row["status"] == "failed":
                self.render_failures[row["format"]] += 1
            else:
                self.renders[row["format"]].observe(row["render_ms"] / 1000)

    def _count_tries(self, rows: Sequence[RowMapping]) -> None:
        made: dict[Hashable, RowMapping] = {
            (row["attempt_pk"], row["started_at"]): row for row in rows
        }
        for row in self._tries.news(made):
            self.attempts[row["channel"], row["outcome"]] += 1
            self.sends[row["channel"]].observe(row["duration_ms"] / 1000)
