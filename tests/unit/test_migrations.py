"""The migrations build exactly the tables, and stand being run again, together and backwards."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import store
from schemas.errors import InvalidSettings
from store.ledger import Ledger, open_ledger
from store.tables import metadata


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))
    return made


def differences(ledger: Ledger) -> list[Any]:
    """What a database has more or less than the tables, types and defaults included."""
    with ledger.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return list(compare_metadata(context, metadata))


def schema(ledger: Ledger) -> list[tuple[str, str]]:
    with ledger.read() as connection:
        found = connection.execute(
            text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
        )
        return [(row[0], row[1]) for row in found]


def downgrade(ledger: Ledger) -> None:
    with ledger.write() as connection:
        backwards = config()
        backwards.attributes["connection"] = connection
        command.downgrade(backwards, "base")


def test_the_migrated_schema_is_that_of_the_tables(url: str) -> None:
    with open_ledger(url) as ledger:
        assert differences(ledger) == []


def test_a_column_that_no_migration_makes_is_noticed(url: str) -> None:
    with open_ledger(url) as ledger:
        with ledger.write() as connection:
            connection.execute(text("ALTER TABLE runs DROP COLUMN last_error"))
        assert [item[0] for item in differences(ledger)] == ["add_column"]


def test_migrating_twice_is_harmless(url: str) -> None:
    with open_ledger(url) as ledger:
        once = schema(ledger)
        ledger.migrate()
        assert schema(ledger) == once


def test_migrations_of_several_threads_are_harmless(url: str) -> None:
    ledgers = [Ledger(url) for _ in range(4)]
    barrier = threading.Barrier(len(ledgers))

    def migrate(ledger: Ledger) -> None:
        barrier.wait(30)
        ledger.migrate()

    with ThreadPoolExecutor(len(ledgers)) as pool:
        list(pool.map(migrate, ledgers))

    assert differences(ledgers[0]) == []
    for ledger in ledgers:
        ledger.close()


def test_migrations_of_several_processes_are_harmless(url: str) -> None:
    program = (
        "import sys; from store.ledger import Ledger; print(flush=True); "
        "sys.stdin.read(); Ledger(sys.argv[1]).migrate()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"  # imported and ready
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    said = [process.communicate(timeout=60)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], said
    ledger = Ledger(url)
    assert differences(ledger) == []
    ledger.close()


def test_the_schema_goes_down_to_nothing_and_up_again(url: str) -> None:
    with open_ledger(url) as ledger:
        built = schema(ledger)
        downgrade(ledger)
        assert [name for name, _ in schema(ledger)] == ["alembic_version"]
        ledger.migrate()
        assert schema(ledger) == built


def test_the_schema_of_a_newer_release_is_refused_in_one_line(url: str) -> None:
    with open_ledger(url) as ledger:
        with ledger.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(InvalidSettings, match="schema 9999 is a newer release's"):
            ledger.migrate()


def test_the_migrations_are_one_line_with_one_head() -> None:
    assert len(ScriptDirectory.from_config(config()).get_heads()) == 1
