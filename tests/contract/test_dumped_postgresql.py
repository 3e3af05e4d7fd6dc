"""The commands of docs/backup.md for PostgreSQL: a dump while writers work, restored elsewhere."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from store.ledger import Ledger, open_ledger
from store.tables import metadata, runs
from tests.contract.test_upgraded_rows import fill

pytestmark = pytest.mark.full


class Undone(Exception):
    """Nothing of a transaction remains."""


def run(*command: str) -> None:
    done = subprocess.run(
        command, env=os.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def counts(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }


def test_a_dump_taken_beside_a_writer_is_restored_as_a_ledger(cluster: Any, tmp_path: Path) -> None:
    dump = str(tmp_path / "ledger.dump")
    for name in ("dumped", "restored"):
        cluster.administer(f"CREATE DATABASE {name}")
    try:
        with open_ledger(cluster.url("dumped")) as ledger:
            with ledger.write() as connection:
                fill(connection)
            committed = counts(ledger)
            with suppress(Undone), ledger.write() as connection:  # under way: not in the dump
                connection.execute(runs.delete())
                run("pg_dump", "--format=custom", f"--file={dump}", cluster.url("dumped"))
                raise Undone
        run("pg_restore", f"--dbname={cluster.url('restored')}", "--no-owner", dump)
        with open_ledger(cluster.url("restored")) as ledger:
            assert counts(ledger) == committed
            current, head = ledger.revisions()
            assert current == head
    finally:
        for name in ("dumped", "restored"):
            cluster.administer(f"DROP DATABASE {name} WITH (FORCE)")
