"""What the audit of the ledger calls accounted for, asked of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import delete, func, select, update

from schemas.audit import GAPS_LISTED, Audit, Gap
from schemas.errors import ArtifactsUnavailable
from schemas.events import EventType, decode_entry
from schemas.notifications import ChannelAddress, ChannelKind, Notification
from schemas.reports import Format, Severity
from schemas.runs import DeadEntry, DecodedEntry, Entry, Run
from store import audit as auditing
from store import deliveries, events, retention, runs, tables, tries
from store.artifacts import ArtifactStore
from store.audit import LedgerAudit, recorded_entries, recorded_identities
from store.deliveries import DeliveryTicket, Recipient
from store.ledger import Ledger
from store.runs import RenderedReport
from store.secrets import SecretBox
from store.tries import Attempt

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
STREAM = "scans:events"
FORMATS = (Format.HTML, Format.CSV)
DEFAULTS = events.RunDefaults(formats=FORMATS, language="en", rule_pack="eu-baseline")
BOX = SecretBox([Fernet.generate_key().decode()])


def new_id() -> str:
    return str(uuid4())


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "artifacts").as_uri())


@pytest.fixture
def audit(ledger: Ledger, store: ArtifactStore) -> Callable[..., Audit]:
    """The whole audit of the ledger, at noon on the day after by default."""

    def audit(
        *, now: datetime = NOW + DAY, since: datetime | None = None, read: bool = True
    ) -> Audit:
        found = Audit()
        told = LedgerAudit(
            ledger, found, since=since, overdue_before=now, progress=lambda _part, _done: None
        )
        told.events()
        told.runs()
        told.reports(store if read else None)
        told.deliveries()
        return found

    return audit


def record(ledger: Ledger, number: int, *, now: datetime = NOW, **data: Any) -> Run:
    """RECORD a scan; its run waits."""
    scan = {"scan_id": str(UUID(int=number)), "domain": "a.example", **data}
    entry = Entry(STREAM, f"{number}-0", {b"data": json.dumps(scan).encode()})
    item = DecodedEntry(entry, decode_entry(entry.fields, max_bytes=1 << 24))
    with ledger.write() as connection:
        recorded = events.record_batch(
            connection,
            [item],
            [],
            defaults=DEFAULTS,
            now=now,
            dispatch_by=now + MINUTE,
            new_id=new_id,
        )
        return runs.load_run(connection, recorded.tickets[0].run_id)


def bury(ledger: Ledger, number: int = 99) -> None:
    letter = DeadEntry(Entry(STREAM, f"{number}-0", {b"data": b"{"}), "not JSON")
    with ledger.write() as connection:
        events.bury(connection, letter, NOW)
        events.bury(connection, letter, NOW)


def render(ledger: Ledger, store: ArtifactStore, run: Run, *, now: datetime = NOW) -> None:
    """Make every format of a run."""
    made = []
    for name in FORMATS:
        data = f"{run.run_id} {name}".encode()
        key = f"{run.scan_id}/report.{name}"
        store.put(key, data)
        made.append(
            RenderedReport(
                format=name,
                artifact_key=key,
                uri=store.uri(key),
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                rule_pack="eu-baseline@1",
                content_sha256="c" * 64,
                render_ms=1.0,
            )
        )
    with ledger.write() as connection:
        runs.start_rendering(connection, run, FORMATS, max_tries=4, now=now)
        runs.save_rendered(connection, run, made, now)


def settle(ledger: Ledger, run: Run, *, now: datetime = NOW) -> None:
    with ledger.write() as connection:
        assert runs.settle_done(connection, run, now, score=50, summary="2 artifacts")
        news = notification(f"scan.completed:{run.run_id}")
        assert deliveries.save_notification(connection, news, run.run_id, now)


def notification(key: str) -> Notification:
    return Notification(
        event_key=key,
        type=EventType.SCAN_COMPLETED,
        occurred_at=NOW,
        domain="a.example",
        scan_id=None,
        severity=Severity.INFO,
        title="t",
        summary="s",
        facts=(),
        data={},
    )


def tell(ledger: Ledger, key: str = "k:1", suppressed: str | None = None) -> str:
    """Plan one delivery; returns its id."""
    address = ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://one.example/hook")
    recipient = Recipient("one", address, suppressed=suppressed)
    with ledger.write() as connection:
        deliveries.save_notification(connection, notification(key), None, NOW)
        deliveries.plan_deliveries(
            connection,
            key,
            [recipient],
            now=NOW,
            started_by=NOW + MINUTE,
            new_id=new_id,
            box=BOX,
        )
        (row,) = deliveries.planned_deliveries(connection, key, ["one"])
        return str(row["delivery_id"])


def lease(ledger: Ledger, delivery_id: str, number: int = 1) -> None:
    with ledger.write() as connection:
        tries.lease(connection, DeliveryTicket(delivery_id, number), lease_until=NOW + MINUTE)


def send(ledger: Ledger, delivery_id: str, number: int = 1) -> None:
    lease(ledger, delivery_id, number)
    attempt = Attempt(number=number, started_at=NOW, duration_ms=1.0, status_code=200)
    with ledger.write() as connection:
        tries.settle_sent(connection, delivery_id, attempt, NOW)


def fail(ledger: Ledger, delivery_id: str) -> None:
    lease(ledger, delivery_id)
    attempt = Attempt(number=1, started_at=NOW, duration_ms=1.0, error="410 Gone")
    with ledger.write() as connection:
        tries.settle_failed(connection, delivery_id, attempt, NOW)


def spoil(ledger: Ledger, table: Any, *conditions: Any, **values: Any) -> None:
    """Change rows as no code of ours does."""
    with ledger.write() as connection:
        changed = connection.execute(update(table).where(*conditions).values(**values)).rowcount
        assert changed


def only(found: Audit) -> Gap:
    assert found.gaps_total == len(found.gaps) == 1, found.gaps
    return found.gaps[0]


@pytest.fixture
def settled(ledger: Ledger, store: ArtifactStore) -> Run:
    """A day's work: a scan reported, a dead run, a dead letter, a delivery of each end."""
    run = record(ledger, 1)
    render(ledger, store, run)
    settle(ledger, run)
    dead = record(ledger, 2)
    with ledger.write() as connection:
        runs.settle_dead(connection, dead.run_id, "gave up after 5 attempts", NOW)
    bury(ledger)
    send(ledger, tell(ledger, "sent"))
    fail(ledger, tell(ledger, "failed"))
    tell(ledger, "suppressed", suppressed="the subscriber is paused")
    return run


def test_a_done_run_that_told_nobody_anything_is_a_gap(
    ledger: Ledger, settled: Run, audit: Any
) -> None:
    with ledger.write() as connection:
        connection.execute(
            delete(tables.notifications).where(tables.notifications.c.run_id == settled.run_id)
        )
    gap = only(audit())
    assert (gap.kind, gap.what) == ("untold run", {"run": settled.run_id})
    with ledger.write() as connection:
        runs.note_outcome(connection, settled, "1 notifications, 1 of them told before: k")
    assert audit().status == "clean"


def test_settled_work_is_clean_and_adds_up(settled: Run, audit: Any) -> None:
    found = audit()
    assert (found.status, found.gaps) == ("clean", [])
    size = 2 * len(f"{settled.run_id} ") + len("htmlcsv")
    assert found.sums == {
        "events": {
            "events": 3,
            "done": 1,
            "dead": 2,
            "discarded": 0,
            "cancelled": 0,
            "expired": 0,
            "erased": 0,
            "in_flight": 0,
            "unaccounted": 0,
            "repeats": 0,
        },
        "runs": {
            "runs": 2,
            "done": 1,
            "dead": 1,
            "cancelled": 0,
            "in_flight": 0,
            "unaccounted": 0,
        },
        "reports": {
            "reports": 2,
            "ready": 2,
            "failed": 0,
            "expired": 0,
            "pending": 0,
            "unaccounted": 0,
            "artifacts_read": 2,
            "bytes_read": size,
        },
        "deliveries": {
            "deliveries": 3,
            "sent": 1,
            "failed": 1,
            "suppressed": 1,
            "held": 0,
            "merged": 0,
            "in_flight": 0,
            "unaccounted": 0,
            "repeated_sends": 0,
        },
    }


def test_work_in_flight_is_counted_and_is_no_gap(
    ledger: Ledger, store: ArtifactStore, audit: Any
) -> None:
    record(ledger, 1)
    render(ledger, store, record(ledger, 2))
    tell(ledger, "planned")
    lease(ledger, tell(ledger, "leased"))
    found = audit(now=NOW + MINUTE)
    assert found.status == "clean"
    assert found.sums["events"]["in_flight"] == found.sums["runs"]["in_flight"] == 2
    assert found.sums["deliveries"]["in_flight"] == 2


def test_the_pages_of_an_audit_join_without_a_seam(
    ledger: Ledger, store: ArtifactStore, audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "PAGE", 3)
    for number in range(1, 8):
        run = record(ledger, number)
        render(ledger, store, run)
        settle(ledger, run)
        send(ledger, tell(ledger, f"k:{number}"))
    found = audit()
    assert found.status == "clean"
    assert found.sums["events"]["done"] == found.sums["runs"]["done"] == 7
    assert found.sums["reports"]["artifacts_read"] == 14
    assert found.sums["deliveries"]["sent"] == 7


SPOILT = {
    "an event that nobody works on": (
        tables.events,
        {"outcome": "pending"},
        "contradiction",
        "The event is pending, its runs are: 1 done.",
    ),
    "a dead event whose run is done": (
        tables.events,
        {"outcome": "dead", "reason": "x"},
        "contradiction",
        "The event is dead, its runs are: 1 done.",
    ),
    "an event of no known outcome": (
        tables.events,
        {"outcome": "lost"},
        "contradiction",
        "The event is lost, its runs are: 1 done.",
    ),
    "a dead event without a reason": (
        tables.events,
        {"outcome": "dead", "reason": None},
        "no reason",
        "It is dead and nothing says why.",
    ),
    "a report that nobody makes": (
        tables.reports,
        {"status": "pending"},
        "missing report",
        "The run is done, and this format is neither ready nor failed nor expired.",
    ),
    "a failed report without a reason": (
        tables.reports,
        {"status": "failed"},
        "no reason",
        "It failed and nothing says why.",
    ),
    "a report of no known status": (
        tables.reports,
        {"status": "gone"},
        "unknown state",
        "It is 'gone', which means nothing here.",
    ),
    "a ready report without an artifact": (
        tables.reports,
        {"artifact_key": None},
        "bad artifact",
        "The report is ready, and names no artifact.",
    ),
    "a ready report whose artifact is nowhere": (
        tables.reports,
        {"artifact_key": "no/such"},
        "bad artifact",
        "The report is ready, and the store has no such artifact.",
    ),
    "an artifact of another size": (
        tables.reports,
        {"size_bytes": 7},
        "bad artifact",
        "It has 41 bytes, and 7 were recorded.",
    ),
    "an artifact with other bytes": (
        tables.reports,
        {"sha256": "0" * 64},
        "bad artifact",
        "Its SHA-256 is not the one that was recorded.",
    ),
}


@pytest.mark.parametrize(("table", "values", "kind", "why"), SPOILT.values(), ids=SPOILT)
def test_a_gap_is_named(
    ledger: Ledger,
    settled: Run,
    audit: Any,
    table: Any,
    values: dict[str, Any],
    kind: str,
    why: str,
) -> None:
    which = (
        tables.events.c.event_pk == settled.event_pk
        if table is tables.events
        else tables.reports.c.format == "html"
    )
    spoil(ledger, table, which, **values)
    gap = only(audit())
    assert (gap.kind, gap.why) == (kind, why)
    name = "event" if table is tables.events else "scan" if kind == "missing report" else "report"
    expected = {
        "event": str(settled.event_pk),
        "scan": settled.scan_id,
        "report": f"{settled.scan_id}.en.html",
    }
    assert gap.what[name] == expected[name]


@pytest.mark.parametrize(
    ("of", "values", "kind"),
    [
        ("sent", {"state": "failed"}, "no reason"),
        ("sent", {"state": "suppressed"}, "no reason"),
        ("sent", {"state": "elsewhere"}, "unknown state"),
        ("sent", {"state": "held"}, "overdue delivery"),
        ("sent", {"state": "pending", "lease_until": None}, "overdue delivery"),
        ("sent", {"state": "sending", "lease_until": NOW}, "overdue delivery"),
        ("failed", {"state": "sent"}, "unproven delivery"),
        ("suppressed", {"reason": ""}, "no reason"),
    ],
)
def test_a_delivery_that_is_nowhere_is_a_gap(
    ledger: Ledger, settled: Run, audit: Any, of: str, values: dict[str, Any], kind: str
) -> None:
    spoil(ledger, tables.deliveries, tables.deliveries.c.event_key == of, **values)
    found = audit()
    gap = only(found)
    assert gap.kind == kind
    with ledger.read() as connection:
        row = connection.execute(
            select(tables.deliveries).where(tables.deliveries.c.event_key == of)
        ).one()
    assert gap.what == {"delivery": row.delivery_id}
    counted = found.sums["deliveries"]
    assert counted["deliveries"] == 3 == sum(list(counted.values())[1:-1])
    assert counted["unaccounted"] == (kind in ("overdue delivery", "unknown state"))


@pytest.mark.parametrize(
    "values",
    [
        {"state": "held", "due_at": NOW + 2 * DAY},
        {"state": "pending", "due_at": NOW + 2 * DAY, "lease_until": None},
        {"state": "sending", "lease_until": NOW + 2 * DAY},
    ],
)
def test_a_delivery_that_waits_for_its_time_is_no_gap(
    ledger: Ledger, settled: Run, audit: Any, values: dict[str, Any]
) -> None:
    spoil(ledger, tables.deliveries, tables.deliveries.c.event_key == "sent", **values)
    assert audit().status == "clean"


def digested(ledger: Ledger, *keys: str) -> str:
    """Deliveries of which a digest tells; returns the digest's id."""
    digest_id = tell(ledger, "digest:one")
    for key in keys:
        tell(ledger, key)
        spoil(
            ledger,
            tables.deliveries,
            tables.deliveries.c.event_key == key,
            state="held",
            held_for="digest",
            merged_into=digest_id,
        )
    return digest_id


def test_what_a_digest_tells_of_is_accounted_for_with_it(ledger: Ledger, audit: Any) -> None:
    digest_id = digested(ledger, "k:1", "k:2")
    counted = audit(now=NOW).sums["deliveries"]
    assert (counted["merged"], counted["in_flight"], counted["unaccounted"]) == (2, 1, 0)
    send(ledger, digest_id)
    found = audit()
    assert found.status == "clean"
    assert (found.sums["deliveries"]["merged"], found.sums["deliveries"]["sent"]) == (2, 1)


def test_a_digest_that_failed_ends_what_it_tells_of(ledger: Ledger, audit: Any) -> None:
    fail(ledger, digested(ledger, "k:1"))
    found = audit()
    assert found.status == "clean"
    assert found.sums["deliveries"]["merged"] == 1


def test_a_digest_that_waits_too_long_is_one_gap(ledger: Ledger, audit: Any) -> None:
    digest_id = digested(ledger, "k:1", "k:2")
    gap = only(audit())
    assert (gap.kind, gap.what) == ("overdue delivery", {"delivery": digest_id})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"merged_into": "nothing"}, "is not there"),
        ({"state": "failed"}, "is pending"),
        ({"state": "sent"}, "is pending"),
    ],
)
def test_a_digest_and_what_it_tells_of_must_agree(
    ledger: Ledger, audit: Any, values: dict[str, Any], said: str
) -> None:
    digested(ledger, "k:1")
    spoil(ledger, tables.deliveries, tables.deliveries.c.event_key == "k:1", **values)
    gap = only(audit(now=NOW))
    assert gap.kind == "contradiction"
    assert said in gap.why


def test_a_message_sent_twice_is_counted_and_is_no_gap(
    ledger: Ledger, settled: Run, audit: Any
) -> None:
    delivery_id = tell(ledger, "again")
    send(ledger, delivery_id)
    spoil(
        ledger,
        tables.deliveries,
        tables.deliveries.c.delivery_id == delivery_id,
        state="sending",
    )
    send(ledger, delivery_id, 2)
    found = audit()
    assert found.status == "clean"
    assert found.sums["deliveries"]["repeated_sends"] == 1


def test_a_run_that_no_sweep_takes_up_is_a_gap_after_the_grace(ledger: Ledger, audit: Any) -> None:
    run = record(ledger, 1)
    assert audit(now=NOW + MINUTE).status == "clean"
    late = audit(now=NOW + 2 * MINUTE)
    gap = only(late)
    assert (gap.kind, gap.what) == ("overdue run", {"run": run.run_id})
    assert "2026-03-04 05:07:07 UTC" in gap.why
    assert late.sums["runs"]["unaccounted"] == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"deadline": None}, "overdue run"),
        ({"state": "dead"}, "no reason"),
        ({"state": "asleep"}, "unknown state"),
    ],
)
def test_a_run_that_is_nowhere_is_a_gap(
    ledger: Ledger, audit: Any, values: dict[str, Any], kind: str
) -> None:
    run = record(ledger, 1)
    spoil(ledger, tables.runs, **values)
    found = audit(now=NOW)
    assert (kind, {"run": run.run_id}) in [(gap.kind, gap.what) for gap in found.gaps]


@pytest.mark.parametrize("outcome", ["pending", "done"])
def test_an_event_without_a_run_is_a_gap(ledger: Ledger, audit: Any, outcome: str) -> None:
    record(ledger, 1)
    spoil(ledger, tables.events, outcome=outcome)
    with ledger.write() as connection:
        connection.execute(delete(tables.runs))
    gap = only(audit())
    assert (gap.kind, gap.what) == ("event without a run", {"event": "1"})


def test_a_done_run_whose_report_was_never_written_is_a_gap(
    ledger: Ledger, settled: Run, audit: Any
) -> None:
    with ledger.write() as connection:
        connection.execute(delete(tables.reports).where(tables.reports.c.format == "csv"))
    gap = only(audit())
    assert (gap.kind, gap.what["format"]) == ("missing report", "csv")


def test_a_scan_sent_again_with_other_content_is_accounted_for_by_its_later_run(
    ledger: Ledger, store: ArtifactStore, audit: Any
) -> None:
    first = record(ledger, 1)
    again = Entry(STREAM, "2-0", {b"data": json.dumps({**json.loads(first.data), "x": 1}).encode()})
    item = DecodedEntry(again, decode_entry({**again.fields, b"id": b"later"}, max_bytes=1 << 24))
    with ledger.write() as connection:
        tickets = events.record_batch(
            connection,
            [item],
            [],
            defaults=DEFAULTS,
            now=NOW,
            dispatch_by=NOW + MINUTE,
            new_id=new_id,
        ).tickets
        later = runs.load_run(connection, tickets[0].run_id)
    settle(ledger, first)
    assert audit(now=NOW).status == "clean"
    render(ledger, store, later)
    settle(ledger, later)
    assert audit().status == "clean"


def test_a_replay_in_flight_takes_nothing_from_the_run_before(
    ledger: Ledger, settled: Run, audit: Any
) -> None:
    with ledger.write() as connection:
        row = dict(
            connection.execute(select(tables.runs).where(tables.runs.c.run_id == settled.run_id))
            .mappings()
            .one()
        )
        replay = {
            **row,
            "run_id": new_id(),
            "kind": "replay",
            "state": "recorded",
            "deadline": NOW + 2 * DAY,
        }
        connection.execute(tables.runs.insert().values(replay))
        run = runs.load_run(connection, replay["run_id"])
        runs.start_rendering(connection, run, FORMATS, max_tries=4, now=NOW)
    found = audit()
    assert found.status == "clean"
    assert found.sums["reports"]["pending"] == 2


def test_a_report_made_again_while_its_artifact_is_read_is_no_gap(
    ledger: Ledger, settled: Run, store: ArtifactStore, audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store.get

    def get(key: str) -> bytes:
        spoil(ledger, tables.reports, tables.reports.c.artifact_key == key, status="pending")
        return whole(key) + b"new"

    monkeypatch.setattr(store, "get", get)
    found = audit()
    assert [gap.kind for gap in found.gaps if gap.kind == "bad artifact"] == []
    assert found.sums["reports"]["artifacts_read"] == 2


def test_an_expired_report_is_accounted_for_at_each_stop_of_the_cleanup(
    ledger: Ledger, settled: Run, store: ArtifactStore, audit: Any
) -> None:
    with ledger.write() as connection:
        old = retention.find_old_reports(connection, NOW + DAY, keep_newest=0, after=None, limit=9)
        retention.expire_reports(connection, [report.key for report in old])
    assert audit().status == "clean"
    store.delete_many([report.place for report in old])
    assert audit().status == "clean"
    with ledger.write() as connection:
        assert retention.forget_artifacts(connection, [report.key for report in old]) == 2
    found = audit()
    assert found.status == "clean"
    assert (found.sums["reports"]["expired"], found.sums["reports"]["artifacts_read"]) == (2, 0)


def test_without_artifacts_their_bytes_are_believed(
    ledger: Ledger, settled: Run, audit: Any
) -> None:
    spoil(ledger, tables.reports, sha256="0" * 64)
    found = audit(read=False)
    assert found.status == "clean"
    assert found.sums["reports"]["artifacts_read"] == 0


def test_a_store_that_is_away_is_no_gap_but_an_error(
    settled: Run, store: ArtifactStore, audit: Any, tmp_path: Path
) -> None:
    (tmp_path / "artifacts").rename(tmp_path / "elsewhere")
    (tmp_path / "artifacts").write_text("in the way")
    with pytest.raises(ArtifactsUnavailable):
        audit()


def test_since_leaves_out_what_was_recorded_before(
    ledger: Ledger, settled: Run, audit: Any
) -> None:
    for table in (tables.events, tables.reports):
        spoil(ledger, table, **({"outcome": "lost"} if table is tables.events else {"sha256": "0"}))
    spoil(ledger, tables.deliveries, reason=None)
    record(ledger, 7, now=NOW + DAY)
    assert audit(now=NOW + DAY).gaps_total == 7
    young = audit(now=NOW + DAY, since=NOW + DAY)
    assert young.status == "clean"
    assert young.sums["events"]["events"] == young.sums["runs"]["runs"] == 1
    assert young.sums["reports"]["reports"] == young.sums["deliveries"]["deliveries"] == 0


def test_repeats_are_counted_and_looks_at_a_suspect_are_not(ledger: Ledger, audit: Any) -> None:
    bury(ledger)
    record(ledger, 1)
    spoil(ledger, tables.events, tables.events.c.entry_id == "1-0", seen=4)
    assert audit(now=NOW).sums["events"]["repeats"] == 3


def test_an_entry_is_known_as_an_event_or_as_a_dead_letter(ledger: Ledger) -> None:
    record(ledger, 1)
    bury(ledger, 2)
    asked = ["1-0", "2-0", "3-0"]
    assert recorded_entries(ledger, STREAM, asked) == ({"1-0"}, {"2-0"})
    assert recorded_entries(ledger, "another", asked) == (set(), set())
    assert recorded_entries(ledger, STREAM, []) == (set(), set())


def test_an_event_is_known_by_its_source_and_id_together(ledger: Ledger) -> None:
    for number in (1, 2):
        record(ledger, number)
    known = ("", f"scan.completed:{UUID(int=1)}")
    others = {("another", known[1]), ("", f"scan.completed:{UUID(int=3)}")}
    assert recorded_identities(ledger, {known, *others}) == {known}
    assert recorded_identities(ledger, set()) == set()


def test_an_audit_changes_nothing(ledger: Ledger, settled: Run, audit: Any) -> None:
    def everything() -> list[Any]:
        with ledger.read() as connection:
            return [
                connection.execute(select(table)).all() for table in tables.metadata.tables.values()
            ]

    spoil(ledger, tables.reports, sha256="0" * 64)
    before = everything()
    assert audit().gaps_total == 2
    assert everything() == before


def test_of_many_gaps_the_first_are_listed_and_all_are_counted(ledger: Ledger, audit: Any) -> None:
    record(ledger, 1)
    with ledger.write() as connection:
        row = dict(connection.execute(select(tables.events)).mappings().one())
        del row["event_pk"]
        more = [{**row, "event_id": str(number)} for number in range(GAPS_LISTED + 5)]
        connection.execute(tables.events.insert(), more)
        assert connection.execute(select(func.count()).select_from(tables.events)).scalar_one()
    found = audit(now=NOW)
    assert (len(found.gaps), found.gaps_total) == (GAPS_LISTED, GAPS_LISTED + 5)
    assert found.sums["events"]["unaccounted"] == GAPS_LISTED + 5
