"""The copy of a ledger and its artifacts: whole or not there, and what it says is missing."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from typer.testing import CliRunner

from cli.main import app
from schemas.errors import InvalidSettings, LedgerUnavailable
from store import backup
from store.backup import (
    ARTIFACTS,
    LEDGER,
    MANIFEST,
    first_unrecorded,
    missing_artifacts,
    read_manifest,
    restore_backup,
    take_backup,
)
from store.runs import list_reports
from store.tables import events, runs
from tasks.reports import render_formats


@pytest.fixture
def installation(make_parts: Any, record: Any, make_scan: Any, tmp_path: Path) -> Any:
    """Parts with one scan's two reports ready."""
    parts = make_parts(formats=("json", "csv"))
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, list(ticket.formats))
    return parts


def places(parts: Any) -> tuple[Path, Path]:
    return parts.settings.data_dir / "ledger.sqlite3", parts.settings.data_dir / "artifacts"


def take(parts: Any, target: Path) -> Any:
    return take_backup(*places(parts), target, encryption_key="k", now=parts.clock())


def test_a_backup_is_taken_while_a_writer_is_at_work(installation: Any, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    with installation.ledger.write() as connection:  # not committed: not in it
        connection.exec_driver_sql("DELETE FROM reports")
        manifest = take(installation, target)
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN")
    assert (manifest.artifacts, manifest.missing) == (2, 0)
    assert read_manifest(target) == manifest
    assert list(missing_artifacts(target / LEDGER, target / ARTIFACTS)) == []
    assert {path.name for path in target.iterdir()} == {LEDGER, ARTIFACTS, MANIFEST}
    assert (target.stat().st_mode & 0o077) == 0
    assert not list(target.rglob("*.key"))


def test_what_is_restored_is_what_was_there(
    installation: Any, tmp_path: Path, make_parts: Any
) -> None:
    target, place = tmp_path / "backup", tmp_path / "other"
    take(installation, target)
    assert restore_backup(target, place / "ledger.sqlite3", place / "artifacts") == 0
    restored = make_parts(data_dir=place)

    def reports(parts: Any) -> list[dict[str, Any]]:
        with parts.ledger.read() as connection:
            return [dict(row) for row in list_reports(connection, limit=10)]

    assert reports(restored) == reports(installation)
    for row in reports(restored):
        key = row["artifact_key"]
        assert restored.artifacts.get(key) == installation.artifacts.get(key)


def test_a_lost_artifact_is_counted_by_backup_and_restore(
    installation: Any, tmp_path: Path
) -> None:
    with installation.ledger.read() as connection:
        key = list_reports(connection, limit=1)[0]["artifact_key"]
    installation.artifacts.delete(key)
    target, place = tmp_path / "backup", tmp_path / "other"
    assert take(installation, target).missing == 1
    assert list(missing_artifacts(target / LEDGER, target / ARTIFACTS)) == [key]
    assert restore_backup(target, place / "ledger.sqlite3", place / "artifacts") == 1


def test_nothing_that_is_there_is_replaced(installation: Any, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    take(installation, target)
    with pytest.raises(InvalidSettings, match="is there already"):
        take(installation, target)
    with pytest.raises(InvalidSettings, match="move it away"):
        restore_backup(target, *places(installation))


def test_half_a_backup_and_a_changed_one_are_refused(installation: Any, tmp_path: Path) -> None:
    target, place = tmp_path / "backup", tmp_path / "other"
    take(installation, target)
    with (target / LEDGER).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InvalidSettings, match="not what was backed up"):
        restore_backup(target, place / "ledger.sqlite3", place / "artifacts")
    assert not (place / "ledger.sqlite3").exists()
    (target / MANIFEST).unlink()
    with pytest.raises(InvalidSettings, match="no whole backup"):
        read_manifest(target)


def test_a_killed_restore_is_repeated(installation: Any, tmp_path: Path) -> None:
    target, place = tmp_path / "backup", tmp_path / "other"
    take(installation, target)
    first = next(path for path in (target / ARTIFACTS).rglob("*") if path.is_file())
    left = place / "artifacts" / first.relative_to(target / ARTIFACTS)
    left.parent.mkdir(parents=True)
    left.write_bytes(b"hal")
    (place / "ledger.sqlite3.partial").write_bytes(b"half")
    assert restore_backup(target, place / "ledger.sqlite3", place / "artifacts") == 0
    assert left.read_bytes() == first.read_bytes()


def test_other_stores_are_named_with_what_copies_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@h/db")
    said = CliRunner().invoke(app, ["backup", str(tmp_path / "b")])
    assert isinstance(said.exception, InvalidSettings)
    assert "docs/backup.md" in str(said.exception)
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("ARTIFACTS_URL", "s3://bucket")
    said = CliRunner().invoke(app, ["restore", str(tmp_path / "b")])
    assert "in a bucket" in str(said.exception)


def test_the_commands_say_whether_the_key_fits(
    installation: Any, subscribe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(installation, "one")
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(installation.settings.data_dir))
    assert CliRunner().invoke(app, ["backup", str(tmp_path / "b")]).exit_code == 0
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(tmp_path / "other"))
    said = CliRunner().invoke(app, ["restore", str(tmp_path / "b"), "--json"])
    assert said.exit_code == 1
    assert json.loads(said.stdout)["encryption_key_fits"] is False
    (tmp_path / "other" / "ledger.sqlite3").unlink()
    key = (installation.settings.data_dir / "encryption.key").read_text()
    monkeypatch.setenv("SCANHERALD_ENCRYPTION_KEYS", key)
    said = CliRunner().invoke(app, ["restore", str(tmp_path / "b")])
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_a_log_that_was_left_behind_is_in_the_way(
    installation: Any, tmp_path: Path, end: str
) -> None:
    target, place = tmp_path / "backup", tmp_path / "other"
    take(installation, target)
    place.mkdir()
    (place / f"ledger.sqlite3{end}").touch()
    with pytest.raises(InvalidSettings, match=f"ledger.sqlite3{end} is there already"):
        restore_backup(target, place / "ledger.sqlite3", place / "artifacts")
    assert not (place / "ledger.sqlite3").exists()


def test_a_ledger_that_somebody_makes_meanwhile_is_not_replaced(
    installation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, ledger = tmp_path / "backup", tmp_path / "other" / "ledger.sqlite3"
    take(installation, target)
    copy = backup._copy

    def make_it_first(source: Path, to: Path) -> None:
        copy(source, to)
        ledger.write_bytes(b"somebody's")

    monkeypatch.setattr(backup, "_copy", make_it_first)
    ledger.parent.mkdir()
    with pytest.raises(InvalidSettings, match="was made while"):
        restore_backup(target, ledger, tmp_path / "other" / "artifacts")
    assert ledger.read_bytes() == b"somebody's"


def test_a_backup_among_the_artifacts_is_refused(installation: Any) -> None:
    _, artifacts = places(installation)
    with pytest.raises(InvalidSettings, match="among the artifacts"):
        take(installation, artifacts / "backup")


def test_a_file_that_is_no_ledger_is_told(installation: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite3"
    sqlite3.connect(empty).close()
    _, artifacts = places(installation)
    with pytest.raises(LedgerUnavailable, match="alembic_version"):
        take_backup(
            empty, artifacts, tmp_path / "backup", encryption_key="k", now=installation.clock()
        )


def test_a_replay_begins_behind_what_the_stream_that_is_least_far_has_brought(
    installation: Any, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    with installation.ledger.write() as connection:
        for number, (stream, entry) in enumerate(
            (("a", "900-7"), ("a", "1000-3"), ("a", "1000-12"), ("b", "2000-0")), start=50
        ):
            connection.execute(
                insert(events).values(
                    source="s", event_id=f"e{number}", stream=stream, entry_id=entry,
                    payload_size=0, payload_sha256="", outcome="done", seen=1,
                    recorded_at=installation.clock(),
                )
            )  # fmt: skip
        connection.execute(delete(runs).where(runs.c.event_pk < 50))
        connection.execute(update(events).where(events.c.event_pk < 2).values(entry_id="x"))
    take(installation, target)
    assert first_unrecorded(target / LEDGER) == "1000-13"
