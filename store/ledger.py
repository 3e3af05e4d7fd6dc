"""The ledger's engine and transactions: the only code that opens a database.

SQLite runs in WAL mode with a commit that is on disk before it returns
(``synchronous=FULL``), because the listener acknowledges entries on the strength
of it, and writers begin with ``BEGIN IMMEDIATE``: a read that turns into a write
would fail at once, whatever the timeout.  PostgreSQL is a change of URL.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from schemas.errors import InvalidSettings, LedgerUnavailable

BUSY_TIMEOUT_MS = 20_000
"""How long a SQLite writer waits for another one."""

_WRITE = "scanherald_write"


class Ledger:
    """Transactions on one database.

    The engine is made at first use and again after a fork: a connection shared
    by two processes corrupts both.  Safe to share between threads.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: Engine | None = None
        self._pid = 0

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

        Concurrent callers wait for each other.  Raises LedgerUnavailable.
        """
        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7264215)")
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Close every connection of this process."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:
        try:
            with self._connected().connect() as connection:
                connection = connection.execution_options(**{_WRITE: write})
                with connection.begin():
                    yield connection
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise LedgerUnavailable(f"ledger: {_first_line(error)}") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise LedgerUnavailable(f"ledger: {_first_line(error)}") from error
            raise

    def _connected(self) -> Engine:
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                self._engine.dispose(close=False)  # the parent's connections are not ours to close
            self._engine = _engine(self.url)
            self._pid = os.getpid()
        return self._engine


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            return create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=5
            )
        if parsed.get_backend_name() != "sqlite" or not parsed.database:
            raise InvalidSettings(
                f"DATABASE_URL: {parsed.render_as_string()} is neither sqlite:///FILE "
                "nor postgresql://…"
            )
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
    except ArgumentError as error:
        raise InvalidSettings("DATABASE_URL is not a database URL") from error
    except OSError as error:
        raise LedgerUnavailable(f"ledger: cannot make its folder: {error}") from error
    event.listen(engine, "connect", _sqlite_connect)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is deferred; ours is not
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _first_line(error: BaseException) -> str:
    """The driver's own words, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]


Insert = sqlite.Insert | postgresql.Insert


def insert(connection: Connection, table: Table) -> Insert:
    """An INSERT that can say ON CONFLICT, in the connection's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def pack(data: bytes) -> bytes:
    """Compress for a payload column (zlib level 1: JSON shrinks to a tenth at little cost)."""
    return zlib.compress(data, 1)


def unpack(data: bytes) -> bytes:
    """Undo ``pack``."""
    return zlib.decompress(data)


def plain(text: str | None, limit: int = 2000) -> str | None:
    """Bound a text from outside and drop NUL, for a text column."""
    return None if text is None else text.replace("\x00", "")[:limit]


@contextmanager
def open_ledger(url: str) -> Iterator[Ledger]:
    """A ledger with its schema up to date, for as long as a command takes."""
    ledger = Ledger(url)
    try:
        ledger.migrate()
        yield ledger
    finally:
        ledger.close()
