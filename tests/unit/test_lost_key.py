"""The encryption key is lost: reports go on, what is to be told waits, and both come back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import update
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from cli.processes import _look_at_addresses
from listener.health import check_channels
from schemas.health import State
from schemas.notifications import ChannelKind
from schemas.reports import Format
from store import tables
from store.deliveries import DeliveryTicket, claim_due
from store.resealing import reseal_all
from store.secrets import SecretBox
from store.signing_keys import open_signing_key
from store.subscribers import note_kinds
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats

KINDS = (ChannelKind.WEBHOOK, ChannelKind.EMAIL)


@pytest.fixture
def lost(make_parts: Any, subscribe: Any) -> Any:
    """Parts with a subscriber whose key is gone; the file of a new one is in its place."""
    parts = make_parts(formats=("json",))
    subscribe(parts, "anna", KINDS)
    lose(parts)
    return parts


def lose(parts: Any) -> bytes:
    """Take the key file away; returns what it held."""
    path = parts.settings.data_dir / "encryption.key"
    old: bytes = path.read_bytes()
    path.unlink()
    parts._box = None
    return old


def tell(parts: Any, record: Any, make_scan: Any, number: int = 1) -> list[DeliveryTicket]:
    """Settle the run of a scan."""
    ticket = record(parts, make_scan(number))
    render_formats(parts, ticket.run_id, [Format.JSON])
    return settle(parts, ticket.run_id, 1)


def look_again(parts: Any, clock: Any, seconds: float = 600) -> list[DeliveryTicket]:
    """The sweep's look, so much later."""
    clock.forward(seconds)
    with parts.ledger.write() as connection:
        return claim_due(connection, clock(), started_by=clock() + timedelta(seconds=60), limit=100)


def sent(parts: Any) -> int:
    return sum(len(parts._channels[kind].sent) for kind in ChannelKind)


def states(rows: Any, parts: Any) -> list[str]:
    return [row["state"] for row in rows(parts, "deliveries")]


def test_reports_go_on_and_deliveries_wait_with_a_reason(
    lost: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    for ticket in tell(lost, record, make_scan):
        try_delivery(lost, ticket)
    assert [run["state"] for run in rows(lost, "runs")] == ["done"]
    assert [report["status"] for report in rows(lost, "reports")] == ["ready"]
    waiting = rows(lost, "deliveries")
    assert {row["channel"] for row in waiting} == {"webhook", "email"}
    for row in waiting:
        assert (row["state"], row["tries"]) == ("pending", 0)
        assert row["due_at"] == clock() + timedelta(seconds=600)
        assert row["reason"].startswith("the address cannot be read: a stored secret fits none")
        assert "docs/keys.md" in row["reason"]
    assert sent(lost) == 0
    found = check_channels(lost)
    assert found.state is State.DEGRADED
    assert f"{len(waiting)} deliveries wait for an encryption key" in found.says


def test_they_are_sent_when_the_key_is_back(
    make_parts: Any, subscribe: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    parts = make_parts(formats=("json",))
    subscribe(parts, "anna", KINDS)
    old = lose(parts)
    for ticket in tell(parts, record, make_scan):
        try_delivery(parts, ticket)
    assert parts.box is not None  # a new key was made
    (parts.settings.data_dir / "encryption.key").write_bytes(old)
    parts._box = None
    for ticket in look_again(parts, clock):
        try_delivery(parts, ticket)
    assert set(states(rows, parts)) == {"sent"}
    assert sent(parts) == len(states(rows, parts))
    assert check_channels(parts).state is State.HEALTHY


def test_they_are_sent_when_the_address_is_given_anew(
    lost: Any, subscribe: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    for ticket in tell(lost, record, make_scan):
        try_delivery(lost, ticket)
    subscribe(lost, "anna", KINDS)
    for ticket in look_again(lost, clock):
        try_delivery(lost, ticket)
    assert set(states(rows, lost)) == {"sent"}


def test_who_was_sealed_with_the_present_key_is_told_beside_them(
    lost: Any, subscribe: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    subscribe(lost, "bob")
    for ticket in tell(lost, record, make_scan):
        try_delivery(lost, ticket)
    by_name = {row["subscriber_id"]: row["state"] for row in rows(lost, "deliveries")}
    assert by_name == {"anna": "pending", "bob": "sent"}


def test_what_waited_for_too_long_fails_with_the_same_reason(
    lost: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    tell(lost, record, make_scan)
    for ticket in look_again(lost, clock, lost.settings.endpoint_max_failing_s + 1):
        try_delivery(lost, ticket)
    for row in rows(lost, "deliveries"):
        assert row["state"] == "failed"
        assert row["reason"].startswith("the address cannot be read: ")


def test_a_worker_says_at_its_start_that_a_key_is_lost(lost: Any, subscribe: Any) -> None:
    subscribe(lost, "bob")
    with capture_logs() as logs:
        _look_at_addresses(lost)
    (line,) = [line for line in logs if line["event"] == "addresses_closed"]
    assert (line["closed"], line["looked_at"]) == (1, 2)
    assert "docs/keys.md" in line["error"]


def test_rows_of_an_earlier_release_learn_their_channels(
    make_parts: Any, subscribe: Any, rows: Any
) -> None:
    parts = make_parts()
    subscribe(parts, "anna", KINDS)
    subscribe(parts, "bob")

    def forget() -> None:
        with parts.ledger.write() as connection:
            connection.execute(update(tables.subscribers).values(kinds=None))

    forget()
    assert note_kinds(parts.ledger, SecretBox([Fernet.generate_key().decode()])) == 0
    assert note_kinds(parts.ledger, parts.box) == 2
    assert [row["kinds"] for row in rows(parts, "subscribers")] == [
        ["webhook", "email"],
        ["webhook"],
    ]
    assert note_kinds(parts.ledger, parts.box) == 0
    forget()
    reseal_all(parts.ledger, parts.box)
    assert rows(parts, "subscribers")[0]["kinds"] == ["webhook", "email"]


def test_commands_say_which_address_no_key_opens(
    lost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(lost.settings.data_dir))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["subscribers", *arguments], env={"COLUMNS": "200"})

    listed = run("list")
    assert listed.exit_code == 0
    assert "webhook (no key opens it), email (no key opens it)" in listed.stdout
    for command in (["edit", "anna", "--email", "a@example.org"], ["show", "anna"], ["rekey"]):
        said = run(*command)
        assert said.exit_code == 1
        assert "a stored secret fits none of the encryption keys" in str(said.exception)
    said = run("add", "anna", "--email", "a@example.org")
    assert said.exit_code == 0, said.output
    assert "(no key opens it)" not in run("list").stdout


def test_a_lost_signing_key_is_another_signer(tmp_path: Path) -> None:
    """Bundles of the old one are checked with its public key, which was saved."""
    first = open_signing_key(None, tmp_path)
    signature = first.sign(b"what was said")
    (tmp_path / "signing.key").unlink()
    second = open_signing_key(None, tmp_path)
    assert second.public != first.public
    assert first.public.verifies(signature, b"what was said")
    assert not second.public.verifies(signature, b"what was said")
