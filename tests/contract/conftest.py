"""A ledger on each database that we promise to run on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.ledger import Ledger, open_ledger
from tests.postgresql import Cluster


@pytest.fixture(scope="session")
def sqlite_migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("migrated") / "ledger.sqlite3"
    with open_ledger(f"sqlite:///{path}"):
        pass
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.full)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """A migrated, empty ledger."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.sqlite3"
        shutil.copy(request.getfixturevalue("sqlite_migrated"), path)
        made = Ledger(f"sqlite:///{path}")
        yield made
        made.close()
        return
    server: Cluster = request.getfixturevalue("cluster")
    server.administer("CREATE DATABASE trial TEMPLATE migrated")
    made = Ledger(server.url("trial"))
    try:
        yield made
    finally:
        made.close()
        server.administer("DROP DATABASE trial WITH (FORCE)")
