"""The ledger's engine and transactions: the only code that opens a database.

SQLite runs in WAL mode with a commit that is on disk before it returns
(``synchronous=FULL``), because the listener acknowledges entries on the strength
of it, and writers begin with ``BEGIN IMMEDIATE``: a read that turns into a write
would fail at once, whatever the timeout.  PostgreSQL is a change of URL.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from isal import isal_zlib
from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from schemas.errors import InvalidSettings, LedgerUnavailable

BUSY_TIMEOUT_MS = 20_000
"""How long a SQLite writer waits for another one."""

CONNECTIONS = 5
"""Connections to PostgreSQL that one process holds at most, if nothing else is said."""

_TALK = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq would wait for a host that is cut off for as long as TCP does, which is a quarter of an
hour, or for ever.  What the URL says instead counts."""

_LET_GO = """
SET idle_in_transaction_session_timeout = '60s';
SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '30s'
"""
"""The server's side of it: of a host that is cut off in mid-transaction the locks are let go.
No transaction of ours waits so long between two statements."""

READ_ONLY = "25006"
"""PostgreSQL's word for a transaction that may not write: a demoted primary, or a full disk."""

_QUIET: dict[str, Any] = {"hide_parameters": True}
"""An error's text shows its statement, never the values: they are payloads and addresses."""


class Ledger:
    """Transactions on one database.

    The engine is made at first use and again after a fork: a connection shared
    by two processes corrupts both.  Safe to share between threads, of which as many
    as there are ``connections`` to PostgreSQL are served at once, and the others wait.
    """

    def __init__(self, url: str, connections: int = CONNECTIONS) -> None:
        self.url = url
        self._connections = connections
        # By process: a child leaves its parent's alone, since closing it would be a use.
        self._engines: dict[int, Engine] = {}

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed on leaving, rolled back on an exception.

        Raises LedgerUnavailable if the database is locked, full, restarting or
        gone; then nothing of the transaction remains, except that a connection
        lost during COMMIT leaves it unknown: every writer must be safe to repeat.
        """
        with self._transaction(write=True) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One read-only look with one consistent view.  Raises LedgerUnavailable."""
        with self._transaction(write=False) as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the schema to this release; harmless when it is there already.

        Concurrent callers wait for each other.  Raises LedgerUnavailable, and
        InvalidSettings for the schema of a newer release.
        """
        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7264215)")
            config = _migrations()
            current = MigrationContext.configure(connection).get_current_revision()
            if current is not None and current not in _known(config):
                raise InvalidSettings(
                    f"the ledger's schema {current} is a newer release's: start that release, or "
                    "restore a backup; see docs/upgrading.md"
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def revisions(self) -> tuple[str | None, str | None]:
        """The schema's revision and this release's; None for a database without a ledger.

        Reads only.  Raises LedgerUnavailable.
        """
        with self.read() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return current, ScriptDirectory.from_config(_migrations()).get_current_head()

    def known_revisions(self) -> set[str]:
        """Every revision that this release can migrate from, its own among them."""
        return _known(_migrations())

    def close(self) -> None:
        """Close every connection of this process."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        try:
            with self._connected().connect() as connection:
                if not write and connection.dialect.name == "postgresql":
                    # by default each statement would see what was committed just before it
                    connection = connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    if connection.dialect.name == "sqlite":
                        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
                    yield connection
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise LedgerUnavailable(f"ledger: {first_line(error)}") from error
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == READ_ONLY:
                self.close()  # connections to it are of no use until it is the primary again
            elif not error.connection_invalidated:
                raise
            raise LedgerUnavailable(f"ledger: {first_line(error)}") from error

    def _connected(self) -> Engine:
        engine = self._engines.get(os.getpid())
        if engine is None:
            # atomic: of two threads both get the first one's, the other was never connected
            engine = self._engines.setdefault(os.getpid(), _engine(self.url, self._connections))
        return engine


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _known(config: Config) -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


def _engine(url: str, connections: int) -> Engine:
    try:
        parsed = make_url(url)
        if "@" in (parsed.host or ""):  # the end of a password, about to be looked up as a name
            raise ValueError("an unescaped @")
        if parsed.get_backend_name() == "postgresql":
            make_conninfo(**dict.fromkeys(parsed.query, ""))  # refuses what libpq does not know
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                connect_args={
                    name: value for name, value in _TALK.items() if name not in parsed.query
                },
                pool_pre_ping=True,
                pool_size=connections,
                max_overflow=0,
                **_QUIET,
            )
            event.listen(engine, "connect", _postgresql_connect)
            return engine
        if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
            raise InvalidSettings(
                f"DATABASE_URL ({parsed.drivername}:…) is neither sqlite:///FILE nor postgresql://…"
            )
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parsed.set(drivername="sqlite"),
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
            **_QUIET,
        )
    except (ArgumentError, ValueError):
        # the cause is left out, for it may quote the URL with its password
        raise InvalidSettings(
            "DATABASE_URL is not a database URL, such as sqlite:////var/lib/scanherald/"
            "ledger.sqlite3 or postgresql://USER:PASSWORD@HOST/NAME (special characters of the "
            "password percent-encoded)"
        ) from None
    except ProgrammingError as error:
        raise InvalidSettings(f"DATABASE_URL: {first_line(error)}") from error
    except OSError as error:
        raise LedgerUnavailable(f"ledger: cannot make its folder: {error}") from error
    event.listen(engine, "connect", _sqlite_connect)
    return engine


def _postgresql_connect(connection: Any, _record: Any) -> None:
    connection.execute(_LET_GO)
    connection.commit()


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred; ours is not
    cursor = connection.cursor()
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Switch to WAL.  SQLite itself does not wait here for others who open a new file."""
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        time.sleep(0.01)


def first_line(error: BaseException) -> str:
    """The driver's own words, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]


Insert = sqlite.Insert | postgresql.Insert


def insert(connection: Connection, table: Table) -> Insert:
    """An INSERT that can say ON CONFLICT, in the connection's dialect."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Table) -> Insert:
    """The same for a dialect by its name, to be built before there is a connection."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def pack(data: bytes) -> bytes:
    """Compress for a payload column: JSON shrinks to a fifth, or less.

    The format is zlib's.  Its library made for speed takes a quarter of the time, for the same
    size: compression was half of what RECORD cost.
    """
    return isal_zlib.compress(data, 2)


def unpack(data: bytes) -> bytes:
    """Undo ``pack``."""
    return isal_zlib.decompress(data)


def plain(text: str | None, limit: int = 2000) -> str | None:
    """Bound a text from outside, for a text column, without what databases refuse.

    NUL is dropped, half of a surrogate pair becomes a question mark.
    """
    if text is None:
        return None
    return text.replace("\x00", "")[:limit].encode("utf-8", "replace").decode("utf-8")


@contextmanager
def open_ledger(url: str) -> Iterator[Ledger]:
    """A ledger with its schema up to date, for as long as a command takes."""
    ledger = Ledger(url)
    try:
        ledger.migrate()
        yield ledger
    finally:
        ledger.close()
