"""A ledger on each database that we promise to run on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from store.ledger import Ledger, open_ledger

DEBIAN = Path("/usr/lib/postgresql")
OWNER = "scanherald"


class Cluster:
    """A PostgreSQL server of this test run, reached by a socket in its own folder."""

    def __init__(self, folder: Path, control: Path) -> None:
        self.folder = folder
        self._control = control

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-k {self.folder} -h '' -F -c full_page_writes=off"
        log = str(self.folder / "log")
        _as_server(self.folder, self._control, "start", "-w", "-l", log, "-o", options)

    def stop(self) -> None:
        """Stop the server as a crash would: every connection is cut."""
        _as_server(self.folder, self._control, "stop", "-w", "-m", "immediate")

    def url(self, database: str) -> str:
        """As an operator would write it into DATABASE_URL."""
        return f"postgresql://{OWNER}@/{database}?host={self.folder}"

    def administer(self, statement: str) -> None:
        """Make or drop a database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Debian's PostgreSQL, started for this test run, with one migrated database."""
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not versions:
        pytest.fail(f"no PostgreSQL in {DEBIAN}: install Debian's postgresql")
    with _folder_of_the_server() as folder:
        _as_server(folder, versions[-1], "--no-sync", "--auth=trust", f"--username={OWNER}")
        running = Cluster(folder, versions[-1].with_name("pg_ctl"))
        running.start()
        try:
            running.administer("CREATE DATABASE migrated")
            with open_ledger(running.url("migrated")):
                pass
            yield running
        finally:
            running.stop()


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


@contextmanager
def _folder_of_the_server() -> Iterator[Path]:
    """Short enough for a socket's path, and open to the server's user."""
    folder = Path(tempfile.mkdtemp(prefix="ledger-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        yield folder
    finally:
        shutil.rmtree(folder)


def _as_server(folder: Path, program: Path, *arguments: str) -> None:
    """Run a program of PostgreSQL, which refuses to be root."""
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
    with (folder / f"{program.name}.said").open("a+") as said:
        code = subprocess.run(
            [program, "-D", folder / "data", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
            **identity,
        ).returncode
        if code != 0:
            said.seek(0)
            pytest.fail(f"{program.name}: exit status {code}\n{said.read()}")
