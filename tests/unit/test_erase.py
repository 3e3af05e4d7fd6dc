"""Erasing a domain or a subscriber: nothing of them is left, and nothing of others is gone."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from schemas.audit import Audit
from schemas.errors import NotFound
from schemas.notifications import ChannelKind, Digest, DigestRhythm, Notification
from schemas.notifications import Receipt as Answer
from schemas.runs import DeadEntry, Entry
from store import tables
from store.audit import LedgerAudit
from store.deliveries import DeliveryTicket
from store.events import record_dead
from store.figures import save_statistics
from store.ledger import unpack
from store.subscribers import remove_subscriber
from tasks.alerts import alert_disabled_endpoints
from tasks.cleanup import Limits
from tasks.direct import send_notification_async
from tasks.erase import Receipt, erase_domain, erase_subscriber
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.on_demand import render_on_demand
from tasks.orphans import clean_orphans
from tasks.reports import render_formats, render_report
from tasks.sweep import sweep_once

SHOP = "erased.example"


@pytest.fixture
def light(make_parts: Any) -> Any:
    return make_parts(formats=("csv",), violation_severity="low")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test's records are kept, for the others: making them costs a second."""
    return tmp_path_factory.mktemp("busy") / "data"


@pytest.fixture
def busy(light: Any, record: Any, make_scan: Any, subscribe: Any, clock: Any, kept: Path) -> Any:
    """Two domains with two scans each and one begun, told to one at once, to one by a digest."""
    numbers = itertools.count(1000 if kept.exists() else 1)
    light.new_id = lambda: str(uuid.UUID(int=next(numbers)))
    if kept.exists():
        shutil.copytree(kept, light.settings.data_dir, dirs_exist_ok=True)
        return light
    subscribe(light, "anna", user_id="u-1")
    subscribe(light, "carl", digest=Digest(rhythm=DigestRhythm.HOURLY, below="high"))
    for number in range(1, 5):
        domain = SHOP if number % 2 else "other.example"
        ticket = record(light, make_scan(number, domain=domain), id=f"e-{number}", userid="u-1")
        render_formats(light, ticket.run_id, ticket.formats)
        for delivery in settle(light, ticket.run_id, 1):
            try_delivery(light, delivery)
    for number, domain in ((5, SHOP), (6, "other.example")):
        data = json.dumps({"domain": domain}).encode()
        ticket = record(light, data, type="scan.started", id=f"e-{number}", userid="u-1")
        settle(light, ticket.run_id, 1)
    with light.ledger.write() as connection:
        save_statistics(connection, "tasks", {"busiest": SHOP}, clock())
        save_statistics(connection, "tasks", {"busiest": "other.example"}, clock())
        letter = DeadEntry(
            Entry("scans:events", "99-0", {b"data": b'{"domain":"Erased.example",'}), "not JSON"
        )
        record_dead(connection, letter, clock())
    light.ledger.close()
    shutil.copytree(light.settings.data_dir, kept)
    return light


def receipt(parts: Any, *, dry_run: bool = False, listing: Any = None) -> Receipt:
    return Receipt(dry_run, parts.clock(), listing)


def everything(parts: Any) -> str:
    """All that the ledger holds, as one text; what is compressed, decompressed."""
    said = []
    with parts.ledger.read() as connection:
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(select(table)).mappings():
                for value in row.values():
                    if isinstance(value, bytes) and value[:1] == b"x":
                        said.append(unpack(value).decode())
                    else:
                        said.append(str(value))
    return "\n".join(said)


def audit(parts: Any, at: Any) -> Audit:
    found = Audit()
    told = LedgerAudit(
        parts.ledger, found, since=None, overdue_before=at, progress=lambda _part, _done: None
    )
    told.events()
    told.runs()
    told.reports(parts.artifacts)
    told.deliveries()
    return found


def files(parts: Any) -> set[Path]:
    return {path for path in parts.artifacts.folder.rglob("*") if path.is_file()}


# A domain


def test_of_an_erased_domain_nothing_is_left_that_names_it(busy: Any, rows: Any) -> None:
    other = {name: rows(busy, name) for name in ("scans", "violations", "standings")}
    erase_domain(busy, SHOP, receipt(busy))
    assert SHOP not in everything(busy).lower()
    for name, before in other.items():
        assert rows(busy, name) == [row for row in before if row["domain"] == "other.example"]
    assert len(files(busy)) == len(rows(busy, "reports")) == 2
    assert "other.example" in everything(busy)


def test_the_audit_is_clean_and_the_identities_are_there(
    busy: Any, rows: Any, clock: Any, record: Any, make_scan: Any
) -> None:
    erase_domain(busy, SHOP, receipt(busy))
    found = audit(busy, clock())
    assert found.gaps == []
    assert found.sums["events"]["erased"] == 4  # two scans, a start and a dead letter
    erased = [row for row in rows(busy, "events") if row["outcome"] == "erased"]
    assert {row["event_id"] for row in erased} == {"e-1", "e-3", "e-5", "99-0"}
    assert {row["entry_id"] for row in erased} == {"1-0", "3-0", "5-0", "99-0"}
    with pytest.raises(IndexError):  # the entry comes again: a repeat, with no run
        record(busy, make_scan(1, domain=SHOP), id="e-1")
    assert SHOP not in everything(busy)


def test_a_new_event_of_an_erased_domain_begins_anew(
    busy: Any, rows: Any, record: Any, make_scan: Any
) -> None:
    told_before = len([row for row in rows(busy, "notifications") if row["domain"] == SHOP])
    assert told_before
    erase_domain(busy, SHOP, receipt(busy))
    ticket = record(busy, make_scan(1, domain=SHOP), id="new")
    render_formats(busy, ticket.run_id, ticket.formats)
    assert settle(busy, ticket.run_id, 1)  # its violations are told: their keys are free
    (run,) = [row for row in rows(busy, "runs") if row["run_id"] == ticket.run_id]
    assert run["inputs"]["previous_event_pk"] is None
    assert run["inputs"]["history"] == []


def test_the_receipt_is_the_digest_of_the_list_and_a_dry_run_says_the_same_numbers(
    busy: Any, rows: Any
) -> None:
    before, kept = everything(busy), files(busy)
    with busy.ledger.read() as connection:
        size = connection.execute(
            select(func.sum(tables.reports.c.size_bytes)).where(
                tables.reports.c.scan_id == tables.scans.c.scan_id, tables.scans.c.domain == SHOP
            )
        ).scalar_one()
    expected = receipt(busy, dry_run=True)
    erase_domain(busy, SHOP, expected)
    assert (everything(busy), files(busy)) == (before, kept)
    listing = io.StringIO()
    found = receipt(busy, listing=listing)
    erase_domain(busy, SHOP, found)
    assert found.counts == expected.counts
    assert found.artifact_bytes == expected.artifact_bytes == size
    lines = listing.getvalue().splitlines()
    assert len(lines) == sum(found.counts.values())
    assert hashlib.sha256(listing.getvalue().encode()).hexdigest() == found.sha256
    assert found.counts["events"] == found.counts["runs"] == found.counts["scans"] + 1 == 3
    assert found.counts["artifacts"] == found.counts["reports"] == 2
    again = receipt(busy)
    erase_domain(busy, SHOP, again)
    assert sum(again.counts.values()) == 0


def test_an_unfinished_run_is_cancelled_and_its_worker_leaves_nothing(
    busy: Any, rows: Any, record: Any, make_scan: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = record(busy, make_scan(9, domain=SHOP), id="e-9")
    put = busy.artifacts.place
    found = receipt(busy)

    def put_then_erase(key: str, data: bytes) -> None:
        put(key, data)
        if not found.ended_at:
            erase_domain(busy, SHOP, found)
            put(key, data)  # a worker that is slower than the erasing

    monkeypatch.setattr(busy.artifacts, "place", put_then_erase)
    statuses = render_report.apply((ticket.run_id, 1, ["csv"])).get()
    assert statuses == {"csv": "gone"}
    assert found.cancelled == 1
    assert not [path for path in files(busy) if "0000000a0009" in str(path)]
    assert ticket.run_id not in {row["run_id"] for row in rows(busy, "runs")}
    assert sweep_once(busy)["runs"] == 0
    assert audit(busy, clock()).gaps == []


def test_a_report_asked_for_while_its_domain_is_erased_is_not_made(
    busy: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = busy.artifacts.place

    def put_then_erase(key: str, data: bytes) -> None:
        put(key, data)
        monkeypatch.setattr(busy.artifacts, "place", put)
        erase_domain(busy, SHOP, receipt(busy))

    monkeypatch.setattr(busy.artifacts, "place", put_then_erase)
    with pytest.raises(NotFound, match="was erased"):
        render_on_demand(busy, "00000000-0000-0000-0000-0000000a0001")
    assert SHOP not in everything(busy)
    assert len(files(busy)) == 2
    assert clean_orphans(busy, Limits(dry_run=True)).counts["artifacts"] == 0


def test_what_is_recorded_while_a_domain_is_erased_goes_too(
    busy: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_many = busy.artifacts.delete_many

    def record_one_more(keys: Any) -> None:
        monkeypatch.setattr(busy.artifacts, "delete_many", delete_many)
        record(busy, make_scan(11, domain=SHOP), id="e-11")
        delete_many(keys)

    monkeypatch.setattr(busy.artifacts, "delete_many", record_one_more)
    erase_domain(busy, SHOP, receipt(busy))
    assert SHOP not in everything(busy)
    assert rows(busy, "runs")[-1]["state"] == "done"


def test_a_kill_between_any_two_steps_leaves_the_rest_to_the_same_command(
    busy: Any, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    class Killed(BaseException):
        pass

    delete = busy.artifacts.delete

    def die(key: str) -> None:
        delete(key)
        raise Killed

    monkeypatch.setattr(busy.artifacts, "delete", die)
    for _ in range(2):
        with pytest.raises(Killed):
            erase_domain(busy, SHOP, receipt(busy))
        assert audit(busy, clock()).gaps == []
    monkeypatch.setattr(busy.artifacts, "delete", delete)
    erase_domain(busy, SHOP, receipt(busy))
    assert SHOP not in everything(busy).lower()
    assert len(files(busy)) == 2


def test_a_digest_that_tells_of_it_keeps_what_it_tells_of_others(
    busy: Any, clock: Any, rows: Any, published: Any
) -> None:
    clock.forward(3600)
    sweep_once(busy)
    (digest,) = digests(busy)
    assert {line.domain for line in digest.lines} == {SHOP, "other.example"}
    erase_domain(busy, SHOP, receipt(busy))
    (digest,) = digests(busy)
    assert {line.domain for line in digest.lines} == {"other.example"}
    assert SHOP not in everything(busy)
    for delivery_id, number, _ in published:
        try_delivery(busy, DeliveryTicket(delivery_id, number))
    sent = [message.notification for message in busy._channels[ChannelKind.WEBHOOK].sent]
    (told,) = [item for item in sent if item.type == "notification.digest"]
    assert {line.domain for line in told.lines} == {"other.example"}
    assert audit(busy, clock()).gaps == []


def digests(parts: Any) -> list[Notification]:
    with parts.ledger.read() as connection:
        contents = connection.execute(
            select(tables.notifications.c.content).where(
                tables.notifications.c.type == "notification.digest"
            )
        ).scalars()
        return [msgspec.json.decode(unpack(content), type=Notification) for content in contents]


# A subscriber


def test_of_an_erased_subscriber_nothing_is_left(busy: Any, rows: Any, clock: Any) -> None:
    carls = [row for row in rows(busy, "deliveries") if row["subscriber_id"] == "carl"]
    assert carls
    keys = {row["event_key"] for row in rows(busy, "notifications")}
    found = receipt(busy)
    erase_subscriber(busy, "anna", found)
    assert "anna" not in everything(busy)
    assert "u-1" not in everything(busy)
    assert rows(busy, "deliveries") == carls
    assert {row["event_key"] for row in rows(busy, "notifications")} == keys
    assert found.counts["subscribers"] == 1
    assert found.counts["owners"] == 6
    assert found.counts["deliveries"] > 0
    assert audit(busy, clock()).gaps == []


def test_a_subscribers_digest_and_what_waits_for_it_go_with_it(
    busy: Any, rows: Any, clock: Any, published: Any
) -> None:
    clock.forward(3600)
    sweep_once(busy)
    assert digests(busy)
    erase_subscriber(busy, "carl", receipt(busy))
    assert "carl" not in everything(busy)
    assert digests(busy) == []
    assert {row["subscriber_id"] for row in rows(busy, "deliveries")} == {"anna"}
    assert audit(busy, clock()).gaps == []


def test_a_user_id_that_another_subscriber_has_stays(busy: Any, subscribe: Any, rows: Any) -> None:
    subscribe(busy, "anna-at-home", user_id="u-1")
    erase_subscriber(busy, "anna", receipt(busy))
    assert {row["user_id"] for row in rows(busy, "events")} >= {"u-1"}


def test_what_the_platform_had_said_to_them_goes_and_its_key_is_told_once_still(
    busy: Any, rows: Any
) -> None:
    notification = {"event": "scan.failed", "notification_id": "n-1", "user_id": "u-1"}
    send_notification_async.apply((notification, {"email": "anna@home.example"})).get()
    erase_subscriber(busy, "anna", receipt(busy))
    (row,) = [row for row in rows(busy, "notifications") if row["event_key"].startswith("direct:")]
    assert row["content"] == b""
    assert "home.example" not in everything(busy)


def test_an_alert_that_names_them_says_only_that_there_was_one(
    busy: Any, rows: Any, clock: Any, subscribe: Any
) -> None:
    subscribe(busy, "ops", events=("operator.alert",))
    disabled = [("anna", ChannelKind.WEBHOOK), ("annabel", ChannelKind.EMAIL)]
    with busy.ledger.write() as connection:
        (alert,) = alert_disabled_endpoints(connection, busy, disabled)
    erase_subscriber(busy, "anna", receipt(busy))
    try_delivery(busy, alert)
    sent = busy._channels[ChannelKind.WEBHOOK].sent[-1].notification
    assert sent.data["such_as"] == ["(erased)", "annabel (email)"]


def test_a_try_in_a_workers_hand_ends_without_a_trace(
    light: Any, subscribe: Any, record: Any, rows: Any
) -> None:
    subscribe(light)
    ticket = record(light, b'{"error":"DNS"}', type="scan.failed", id="1")
    (delivery,) = settle(light, ticket.run_id, 1)
    channel = light._channels[ChannelKind.WEBHOOK]
    channel.script = [lambda: _erase_then_answer(light)]
    try_delivery(light, delivery)
    assert rows(light, "attempts") == rows(light, "deliveries") == []


def _erase_then_answer(parts: Any) -> Any:
    erase_subscriber(parts, "anna", receipt(parts))
    return Answer(status_code=200, text="thanks")


def test_whom_nothing_is_kept_of_is_said(busy: Any) -> None:
    with pytest.raises(NotFound, match="nothing is kept of a subscriber 'nobody'"):
        erase_subscriber(busy, "nobody", receipt(busy))


def test_one_who_was_removed_before_is_known_by_deliveries(busy: Any, rows: Any) -> None:
    with busy.ledger.write() as connection:
        remove_subscriber(connection, "anna", busy.clock())
    found = receipt(busy)
    erase_subscriber(busy, "anna", found)
    assert found.counts["deliveries"] > 0
    assert "anna" not in everything(busy)


# By command


@pytest.fixture
def run(busy: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(busy.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # the process's stay as set

    def run(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(app, list(arguments), **options)

    with capture_logs():
        yield run


def test_the_command_prints_a_receipt_whose_list_can_be_checked(
    run: Any, busy: Any, tmp_path: Path
) -> None:
    listing = tmp_path / "erased.txt"
    dry = json.loads(run("erase", "--domain", SHOP, "--dry-run", "--json").stdout)
    said = run("erase", "--domain", SHOP, "--yes", "--json", "--list", str(listing))
    found = json.loads(said.stdout)
    assert (found["dry_run"], found["domain"]) == (False, SHOP)
    assert found["removed"] == dry["removed"]
    assert hashlib.sha256(listing.read_bytes()).hexdigest() == found["sha256"]
    assert SHOP not in everything(busy)
    assert "Nothing of it is kept" in run("erase", "--domain", SHOP, "--yes").stdout


def test_the_command_does_nothing_unasked(run: Any, busy: Any) -> None:
    before = everything(busy)
    refused = run("erase", "--subscriber", "anna")
    assert refused.exit_code != 0
    assert "say --yes" in str(refused.exception)
    assert "name what to erase" in str(run("erase").exception)
    assert everything(busy) == before
