"""A PostgreSQL server of the test run, from Debian's packages, never as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

DEBIAN = Path("/usr/lib/postgresql")
OWNER = "scanherald"


class Cluster:
    """A server reached by a socket in its own folder, and by ``host`` where one is given.

    ``inside`` is put in front of the server's start, such as a command that enters a
    network namespace.
    """

    def __init__(
        self, folder: Path, control: Path, host: str = "", inside: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self._control = control
        self._host = host
        self._inside = inside

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-k {self.folder} -h '{self._host}' -F -c full_page_writes=off"
        log = str(self.folder / "log")
        _as_server(
            self.folder,
            self._control,
            *("start", "-w", "-l", log, "-o", options),
            inside=self._inside,
        )

    def stop(self) -> None:
        """Stop the server as a crash would: every connection is cut."""
        _as_server(self.folder, self._control, "stop", "-w", "-m", "immediate")

    def url(self, database: str, host: str | None = None) -> str:
        """As an operator would write it into DATABASE_URL."""
        if host is not None:
            return f"postgresql://{OWNER}@{host}/{database}"
        return f"postgresql://{OWNER}@/{database}?host={self.folder}"

    def administer(self, statement: str) -> list[Any]:
        """Make or drop a database, or ask for its figures."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return [] if cursor.description is None else cursor.fetchall()


@contextmanager
def run_cluster(*, host: str = "", inside: Sequence[str] = ()) -> Iterator[Cluster]:
    """A server for as long as the context lasts; trusts whoever reaches it."""
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not versions:
        pytest.fail(f"no PostgreSQL in {DEBIAN}: install Debian's postgresql")
    with _folder_of_the_server() as folder:
        _as_server(folder, versions[-1], "--no-sync", "--auth=trust", f"--username={OWNER}")
        if host:
            with (folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all 10.0.0.0/8 trust\n")
        running = Cluster(folder, versions[-1].with_name("pg_ctl"), host, inside)
        running.start()
        try:
            yield running
        finally:
            running.stop()


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


def _as_server(folder: Path, program: Path, *arguments: str, inside: Sequence[str] = ()) -> None:
    """Run a program of PostgreSQL, which refuses to be root."""
    identity: dict[str, Any] = {}
    command: list[str | Path] = [program, "-D", folder / "data", *arguments]
    if os.geteuid() == 0:
        if inside:  # entering takes root's rights, which are dropped inside
            drop = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            command = [*inside, *drop, *command]
        else:
            identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
    with (folder / f"{program.name}.said").open("a+") as said:
        code = subprocess.run(
            command,
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
