"""The audit of the ledger: every event, run, report and delivery is somewhere, and says why.

Read-only, page by page: memory stays flat and no transaction lasts.  What is
compared is read in one transaction, because the writers change it in one: an
event and its runs, a run and its reports, a delivery and its attempts.  So work
that goes on meanwhile is seen before or after a step, and makes no gap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    RowMapping,
    Select,
    case,
    exists,
    false,
    func,
    select,
    true,
)

from schemas.audit import Audit, Gap
from schemas.errors import NotFound
from schemas.runs import DeliveryState, RunState
from store.artifacts import ArtifactStore
from store.events import DEAD_SOURCE
from store.ledger import Ledger
from store.tables import (
    attempts,
    deliveries,
    events,
    notifications,
    replays,
    reports,
    runs,
    scans,
)

PAGE = 500
"""Rows of one look."""

DEFECT = "This is a defect: keep the ledger and the logs, and report it"

Progress = Callable[[str, int], None]
"""Told the part that is under way and how much of it is done."""


class LedgerAudit:
    """Audits one ledger into ``audit``.

    ``since`` leaves out events recorded before it, and deliveries planned before
    it.  What was due before ``overdue_before`` and is still waiting is a gap.
    Every method raises LedgerUnavailable.
    """

    def __init__(
        self,
        ledger: Ledger,
        audit: Audit,
        *,
        since: datetime | None,
        overdue_before: datetime,
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._audit = audit
        self._since = since
        self._overdue_before = overdue_before
        self._progress = progress

    def events(self) -> None:
        """``events`` is the sum of all but ``repeats``, which came again.

        ``repeats`` came again.  A dead letter that an operator discarded keeps its row,
        which says why.  Of ``expired`` and ``erased`` ones the bare identity is left.
        """
        sums = self._audit.begin(
            "events",
            *("events", "done", "dead", "discarded", "cancelled"),
            *("expired", "erased", "in_flight", "unaccounted", "repeats"),
        )
        query = (
            select(
                events.c.event_pk,
                events.c.outcome,
                events.c.source.startswith(DEAD_SOURCE).label("is_dead_letter"),
                events.c.seen,
                _given(events.c.reason),
                func.count(runs.c.run_id).label("runs"),
                _number(runs.c.state.in_([RunState.RECORDED, RunState.DISPATCHED]), "in_flight"),
                _number(runs.c.state == RunState.DONE, "done"),
                _number(runs.c.state == RunState.DEAD, "dead"),
                _number(runs.c.state == RunState.CANCELLED, "cancelled"),
            )
            .select_from(events)
            .outerjoin(runs, runs.c.event_pk == events.c.event_pk)
            .where(self._recent(events.c.recorded_at))
            .group_by(events.c.event_pk)
        )
        for row in self._rows("events", query, events.c.event_pk):
            sums["events"] += 1
            if not row["is_dead_letter"]:  # of those, `seen` counts the looks at a suspect
                sums["repeats"] += row["seen"] - 1
            gap = _judge_event(row)
            if gap is None:
                sums["in_flight" if row["outcome"] == "pending" else row["outcome"]] += 1
            else:
                sums["unaccounted"] += 1
                self._audit.add(gap)

    def runs(self) -> None:
        """``runs = done + dead + cancelled + in_flight + unaccounted``.

        A done one has a report per format.
        """
        sums = self._audit.begin(
            "runs", *("runs", "done", "dead", "cancelled", "in_flight", "unaccounted")
        )
        query = (
            select(
                runs.c.run_id,
                runs.c.event_pk,
                runs.c.scan_id,
                runs.c.state,
                runs.c.deadline,
                runs.c.formats,
                runs.c.inputs["language"].as_string().label("language"),
                _given(runs.c.last_error),
                scans.c.event_pk.label("scan_event_pk"),
                events.c.reason.contains("told before").label("told_before"),
                exists().where(notifications.c.run_id == runs.c.run_id).label("told"),
                runs.c.replay_id,
                func.coalesce(replays.c.tells, false()).label("replay_tells"),
            )
            .outerjoin(replays, replays.c.replay_id == runs.c.replay_id)
            .join(events, events.c.event_pk == runs.c.event_pk)
            .outerjoin(scans, scans.c.scan_id == runs.c.scan_id)
            .where(self._recent(events.c.recorded_at))
        )
        for page, made in self._pages("runs", query, runs.c.run_id, _reports_of):
            for row in page:
                sums["runs"] += 1
                sums[self._judge_run(row)] += 1
                if row["state"] == RunState.DONE and not _is_superseded(row):
                    self._judge_formats(row, made)
                    self._judge_news(row)

    def reports(self, artifacts: ArtifactStore | None) -> None:
        """``reports = ready + failed + expired + pending + unaccounted``.

        The artifact of each ready one is read and compared with what was recorded;
        without ``artifacts`` none is.  Raises ArtifactsUnavailable.
        """
        sums = self._audit.begin(
            "reports",
            "reports",
            *("ready", "failed", "expired", "pending", "unaccounted"),
            *("artifacts_read", "bytes_read"),
        )
        query = select(
            reports.c.report_id,
            reports.c.status,
            reports.c.artifact_key,
            reports.c.size_bytes,
            reports.c.sha256,
            _given(reports.c.error),
        )
        if self._since is not None:
            query = (
                query.join(runs, runs.c.run_id == reports.c.run_id)
                .join(events, events.c.event_pk == runs.c.event_pk)
                .where(self._recent(events.c.recorded_at))
            )
        for row in self._rows("reports", query, reports.c.report_id):
            sums["reports"] += 1
            sums[self._judge_report(row)] += 1
            if row["status"] == "ready" and artifacts is not None:
                self._judge_artifact(row, artifacts, sums)
                self._progress("artifacts", sums["artifacts_read"])

    def deliveries(self) -> None:
        """``deliveries = sent + failed + suppressed + held + merged + in_flight + unaccounted``.

        ``held`` wait for quiet hours to end or for a digest; ``merged`` are told by a
        digest, a delivery itself, and share its fate.  ``repeated_sends`` counts sends
        after the first of the same delivery: its receiver could tell by the unchanged id.
        """
        sums = self._audit.begin(
            "deliveries",
            *("deliveries", "sent", "failed", "suppressed", "held", "merged", "in_flight"),
            *("unaccounted", "repeated_sends"),
        )
        digests = deliveries.alias("digests")
        query = (
            select(
                deliveries.c.delivery_id,
                deliveries.c.state,
                deliveries.c.due_at,
                deliveries.c.lease_until,
                deliveries.c.merged_into,
                digests.c.state.label("digest_state"),
                _given(deliveries.c.reason),
                _number(attempts.c.outcome == "sent", "sends"),
            )
            .select_from(deliveries)
            .outerjoin(attempts, attempts.c.delivery_id == deliveries.c.delivery_id)
            .outerjoin(digests, digests.c.delivery_id == deliveries.c.merged_into)
            .where(self._recent(deliveries.c.created_at))
            .group_by(deliveries.c.delivery_id, digests.c.delivery_id)
        )
        for row in self._rows("deliveries", query, deliveries.c.delivery_id):
            sums["deliveries"] += 1
            sums["repeated_sends"] += max(0, row["sends"] - 1)
            sums[self._judge_delivery(row)] += 1

    def _judge_run(self, row: RowMapping) -> str:
        """The sum that a run belongs to."""
        what = {"run": row["run_id"]}
        state = str(row["state"])
        if state == RunState.DONE:
            return "done"
        if state in (RunState.DEAD, RunState.CANCELLED):
            if not row["given"]:
                self._gap("no reason", what, f"It is {state} and nothing says why.", f"{DEFECT}.")
            return state
        if state not in (RunState.RECORDED, RunState.DISPATCHED):
            return self._unknown(what, state)
        if row["deadline"] is None or row["deadline"] < self._overdue_before:
            self._gap(
                "overdue run",
                what,
                f"It is {state} with deadline {_time(row['deadline'])}, "
                "and no sweep has taken it up.",
                "See that beat and a worker run; while many reports wait, the sweep "
                "leaves it for later.",
            )
            return "unaccounted"
        return "in_flight"

    def _judge_formats(
        self, row: RowMapping, made: dict[tuple[str, str, str], tuple[str, str]]
    ) -> None:
        for name in row["formats"]:
            status, asked_by = made.get((row["scan_id"], row["language"], name), (None, None))
            if status is None or (status == "pending" and asked_by == row["run_id"]):
                self._gap(
                    "missing report",
                    {"run": row["run_id"], "scan": str(row["scan_id"]), "format": name},
                    "The run is done, and this format is neither ready nor failed nor expired.",
                    "Ask for it by the task generate_report_async.",
                )

    def _judge_news(self, row: RowMapping) -> None:
        if row["replay_id"] is not None and not row["replay_tells"]:
            return  # it was asked to make reports and to wake nobody
        if not row["told"] and not row["told_before"]:
            self._gap(
                "untold run",
                {"run": row["run_id"]},
                "The run is done, and no news of it was written for anybody.",
                f"{DEFECT}.",
            )

    def _judge_report(self, row: RowMapping) -> str:
        """The sum that a report belongs to."""
        what = {"report": row["report_id"]}
        status = str(row["status"])
        if status not in ("pending", "ready", "failed", "expired"):
            return self._unknown(what, status)
        if status == "failed" and not row["given"]:
            self._gap("no reason", what, "It failed and nothing says why.", f"{DEFECT}.")
        return status

    def _judge_artifact(
        self, row: RowMapping, artifacts: ArtifactStore, sums: dict[str, int]
    ) -> None:
        why = _compare(row, artifacts, sums)
        if why is None:
            return
        with self._ledger.read() as connection:
            again = connection.execute(
                select(
                    reports.c.status, reports.c.artifact_key, reports.c.size_bytes, reports.c.sha256
                ).where(reports.c.report_id == row["report_id"])
            ).one_or_none()
        if again is None or again != (
            row["status"],
            row["artifact_key"],
            row["size_bytes"],
            row["sha256"],
        ):
            return  # made again, or expired, between our looks at the row and at the artifact
        self._gap(
            "bad artifact",
            {"report": row["report_id"], "artifact": str(row["artifact_key"])},
            why,
            "Ask for it again by the task generate_report_async, which renders it from the ledger.",
        )

    def _judge_delivery(self, row: RowMapping) -> str:
        """The sum that a delivery belongs to."""
        what = {"delivery": row["delivery_id"]}
        state = str(row["state"])
        if row["merged_into"] is not None:
            return self._judge_member(row, what, state)
        if state == DeliveryState.SENT:
            if not row["sends"]:
                self._gap(
                    "unproven delivery",
                    what,
                    "It says sent, and no attempt of it does.",
                    f"{DEFECT}; ask the receiver.",
                )
            return state
        if state in (DeliveryState.FAILED, DeliveryState.SUPPRESSED):
            if not row["given"]:
                self._gap("no reason", what, f"It is {state}; nothing says why.", f"{DEFECT}.")
            return state
        if state not in (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.HELD):
            return self._unknown(what, state)
        leased = row["lease_until"] is not None and row["lease_until"] >= self._overdue_before
        if row["due_at"] < self._overdue_before and not leased:
            self._gap(
                "overdue delivery",
                what,
                f"It is {state}, was due at {_time(row['due_at'])}, and nobody has it in hand.",
                "See that beat and a worker run; while many deliveries wait, the sweep "
                "leaves it for later.",
            )
            return "unaccounted"
        return state if state == DeliveryState.HELD else "in_flight"

    def _judge_member(self, row: RowMapping, what: dict[str, str], state: str) -> str:
        """A row that a digest tells of: both settle in one transaction, and alike."""
        digest = row["digest_state"]
        open_states = (DeliveryState.HELD, DeliveryState.PENDING, DeliveryState.SENDING)
        waits = state == DeliveryState.HELD and digest in open_states
        forgotten = state != DeliveryState.HELD and digest is None  # cleanup took it first
        if waits or forgotten or (digest == state and state not in open_states):
            return "merged"
        self._gap(
            "contradiction",
            {**what, "digest": row["merged_into"]},
            f"It is {state}, and the digest that tells of it is {digest or 'not there'}.",
            f"{DEFECT}; ask the receiver.",
        )
        return "unaccounted"

    def _unknown(self, what: dict[str, str], state: str) -> str:
        self._gap(
            "unknown state", what, f"It is {state!r}, which means nothing here.", f"{DEFECT}."
        )
        return "unaccounted"

    def _gap(self, kind: str, what: dict[str, str], why: str, do: str) -> None:
        self._audit.add(Gap(kind, what, why, do))

    def _recent(self, moment: Column[Any]) -> ColumnElement[bool]:
        return true() if self._since is None else moment >= self._since

    def _rows(self, part: str, query: Select[Any], key: Column[Any]) -> Iterator[RowMapping]:
        for page, _ in self._pages(part, query, key, lambda _connection, _page: None):
            yield from page

    def _pages(
        self,
        part: str,
        query: Select[Any],
        key: Column[Any],
        beside: Callable[[Any, Sequence[RowMapping]], Any],
    ) -> Iterator[tuple[Sequence[RowMapping], Any]]:
        """Pages in the order of ``key``, each with what ``beside`` reads in its transaction."""
        bounded = query.order_by(key).limit(PAGE)
        done = 0
        self._progress(part, done)
        while True:
            with self._ledger.read() as connection:
                page = connection.execute(bounded).mappings().all()
                read_beside = beside(connection, page)
            if not page:
                return
            yield page, read_beside
            done += len(page)
            self._progress(part, done)
            bounded = query.where(key > page[-1][key.name]).order_by(key).limit(PAGE)


def recorded_entries(
    ledger: Ledger, stream: str, entry_ids: Sequence[str]
) -> tuple[set[str], set[str]]:
    """Which of these entries the ledger took in first: (as events, as dead letters)."""
    with ledger.read() as connection:
        found = connection.execute(
            select(events.c.entry_id, events.c.source.startswith(DEAD_SOURCE)).where(
                events.c.stream == stream, events.c.entry_id.in_(entry_ids)
            )
        ).all()
    taken = {entry_id for entry_id, is_dead_letter in found if not is_dead_letter}
    return taken, {entry_id for entry_id, _ in found} - taken


def recorded_identities(
    ledger: Ledger, identities: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Which of these (source, event id) the ledger knows, whichever entry brought them."""
    by_source: dict[str, list[str]] = {}
    for source, event_id in identities:
        by_source.setdefault(source, []).append(event_id)
    known: set[tuple[str, str]] = set()
    with ledger.read() as connection:
        for source, event_ids in by_source.items():  # SQLite finds pairs by a scan of all
            found = connection.execute(
                select(events.c.event_id).where(
                    events.c.source == source, events.c.event_id.in_(event_ids)
                )
            ).scalars()
            known |= {(source, event_id) for event_id in found}
    return known


def _is_superseded(row: RowMapping) -> bool:
    """Whether the same scan came again: the run of the later event makes the reports."""
    return row["scan_event_pk"] not in (None, row["event_pk"])


def _judge_event(row: RowMapping) -> Gap | None:
    what = {"event": str(row["event_pk"])}
    outcome = row["outcome"]
    if outcome in ("expired", "erased") and not row["runs"] and row["given"]:
        return None
    if outcome not in ("dead", "discarded") and not row["runs"]:
        return Gap(
            "event without a run",
            what,
            f"It is {outcome}, and no run ever worked on it.",
            f"{DEFECT}; publish the event again under another id.",
        )
    if outcome in ("dead", "discarded", "cancelled") and not row["given"]:
        return Gap("no reason", what, f"It is {outcome} and nothing says why.", f"{DEFECT}.")
    agrees = {
        "pending": row["in_flight"],
        "done": row["done"],
        "dead": row["dead"] or not row["runs"],
        "discarded": row["is_dead_letter"] and not row["runs"],
        "cancelled": row["cancelled"],
    }
    if agrees.get(outcome):
        return None
    states = ", ".join(
        f"{row[name]} {name.replace('_', ' ')}"
        for name in ("in_flight", "done", "dead", "cancelled")
        if row[name]
    )
    return Gap(
        "contradiction",
        what,
        f"The event is {outcome}, its runs are: {states or 'in no known state'}.",
        f"{DEFECT}: both are written in one transaction.",
    )


def _reports_of(
    connection: Any, page: Sequence[RowMapping]
) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Reports of the scans of done runs: (scan, language, format) → (status, who asked last)."""
    wanted = {row["scan_id"] for row in page if row["state"] == RunState.DONE and row["formats"]}
    found = connection.execute(
        select(
            reports.c.scan_id,
            reports.c.language,
            reports.c.format,
            reports.c.status,
            reports.c.run_id,
        ).where(reports.c.scan_id.in_(wanted))
    )
    return {
        (scan_id, language, name): (status, run_id)
        for scan_id, language, name, status, run_id in found
    }


def _compare(row: RowMapping, artifacts: ArtifactStore, sums: dict[str, int]) -> str | None:
    """Why the artifact is not the one that was recorded, or None."""
    if not row["artifact_key"]:
        return "The report is ready, and names no artifact."
    try:
        data = artifacts.get(row["artifact_key"])
    except NotFound:
        return "The report is ready, and the store has no such artifact."
    sums["artifacts_read"] += 1
    sums["bytes_read"] += len(data)
    if len(data) != row["size_bytes"]:
        return f"It has {len(data):,} bytes, and {row['size_bytes']:,} were recorded."
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        return "Its SHA-256 is not the one that was recorded."
    return None


def _given(text: Column[Any]) -> ColumnElement[Any]:
    return (func.coalesce(text, "") != "").label("given")


def _number(condition: ColumnElement[bool], name: str) -> ColumnElement[int]:
    return func.count(case((condition, 1))).label(name)


def _time(moment: datetime | None) -> str:
    return "none" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
