"""Rows of every released schema come up to this release's, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Connection, MetaData, Table, inspect, select

from store.deliveries import list_deliveries
from store.ledger import Ledger, _migrations
from store.runs import list_reports, list_runs
from store.tables import Utc, metadata

REVISIONS = [
    script.revision
    for script in reversed(list(ScriptDirectory.from_config(_migrations()).walk_revisions()))
]

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)

SAID: dict[str, Any] = {
    "state": "done",
    "outcome": "done",
    "status": "ready",
    "channel": "email",
    "type": "scan.completed",
    "severity": "high",
    "kind": "live",
    "formats": ["csv"],
    "inputs": {"language": "en", "rule_pack": "eu-baseline-2026.1"},
}
"""What means something; any other column holds something of its type."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """A database without a schema."""
    if request.param == "sqlite":
        ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
        yield ledger
        ledger.close()
        return
    server = request.getfixturevalue("cluster")
    server.administer("CREATE DATABASE upgraded")
    ledger = Ledger(server.url("upgraded"))
    try:
        yield ledger
    finally:
        ledger.close()
        server.administer("DROP DATABASE upgraded WITH (FORCE)")


def migrate_to(ledger: Ledger, revision: str) -> None:
    with ledger.write() as connection:
        config = _migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def known_columns(connection: Connection) -> dict[str, set[str]]:
    """The tables of this revision, with their columns."""
    inspector = inspect(connection)
    return {
        name: {column["name"] for column in inspector.get_columns(name)}
        for name in inspector.get_table_names()
        if name != "alembic_version"
    }


def value_of(column: Any, number: int) -> Any:
    """Something of the column's type: the same by name, so that references hold."""
    if column.name in SAID:
        return SAID[column.name]
    if isinstance(column.type, JSON):
        return {}
    if isinstance(column.type, Utc):
        return NOON
    made = {str: f"{column.name[:20]}-{number}", int: number, float: 1.5, bool: False}
    return made.get(column.type.python_type, b"bytes")


def fill(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Two rows in each table of the revision that the database is at."""
    columns = known_columns(connection)
    written: dict[str, list[dict[str, Any]]] = {}
    for table in metadata.sorted_tables:
        if table.name not in columns:
            continue
        rows = [
            {
                column.name: value_of(column, number)
                for column in table.columns
                if column.name in columns[table.name]
            }
            for number in (1, 2)
        ]
        of_then = Table(
            table.name,
            MetaData(),
            *(column._copy() for column in table.columns if column.name in columns[table.name]),
        )
        connection.execute(of_then.insert(), rows)
        written[table.name] = rows
    return written


@pytest.mark.parametrize("revision", REVISIONS)
def test_rows_of_a_released_schema_are_this_releases_rows(empty: Ledger, revision: str) -> None:
    migrate_to(empty, revision)
    with empty.write() as connection:
        written = fill(connection)
    assert set(written) >= {"events", "runs", "reports", "subscribers", "deliveries", "attempts"}

    empty.migrate()

    with empty.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
        for name, rows in written.items():
            table = metadata.tables[name]
            found = connection.execute(
                select(*(table.c[column] for column in rows[0])).order_by(
                    *table.primary_key.columns
                )
            ).mappings()
            assert [dict(row) for row in found] == rows, name
        assert len(list_runs(connection, limit=10)) == 2
        assert len(list_reports(connection, limit=10)) == 2
        assert len(list_deliveries(connection, limit=10)) == 2


def test_every_revision_is_tried() -> None:
    assert REVISIONS[0] == "0001"
    assert len(REVISIONS) == len(list(Path("store/migrations/versions").glob("[0-9]*.py")))
