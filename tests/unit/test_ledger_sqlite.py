"""What only the embedded database has to be asked: its locks, its file, its forks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import store.ledger
from schemas.errors import InvalidSettings, LedgerUnavailable
from schemas.runs import DeadEntry, Entry
from store.events import count_outcomes, record_dead
from store.ledger import Ledger, open_ledger, pack, unpack

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "in" / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with open_ledger(f"sqlite:///{path}") as opened:
        yield opened


def bury(ledger: Ledger, number: int, content: bytes = b"") -> None:
    letter = DeadEntry(Entry("scans:events", f"{number}-0", {b"data": content}), "why")
    with ledger.write() as connection:
        assert record_dead(connection, letter, NOW)


def count(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return count_outcomes(connection).get("dead", 0)


def ask(ledger: Ledger, question: str) -> Any:
    with ledger.read() as connection:
        return connection.execute(text(question)).scalar_one()


def in_a_child(work: Callable[[], None]) -> int:
    """The exit status of a forked child that does this work; 1 if it raises."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_commit_is_on_disk_before_it_returns(ledger: Ledger) -> None:
    assert ask(ledger, "PRAGMA journal_mode") == "wal"
    assert ask(ledger, "PRAGMA synchronous") == 2  # FULL
    assert ask(ledger, "PRAGMA foreign_keys") == 1
    with ledger.write() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2


def test_a_commit_survives_reopening(path: Path, ledger: Ledger) -> None:
    bury(ledger, 1)
    ledger.close()
    with open_ledger(f"sqlite:///{path}") as reopened:
        assert count(reopened) == 1


def test_a_closed_ledger_opens_again_when_it_is_used(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    bury(ledger, 1)
    assert count(ledger) == 1


def test_an_exception_rolls_everything_back(path: Path, ledger: Ledger) -> None:
    def fall() -> None:
        with ledger.write() as connection:
            record_dead(connection, DeadEntry(Entry("s", "1-0", {}), "why"), NOW)
            raise KeyError("fell")

    with pytest.raises(KeyError):
        fall()

    assert count(ledger) == 0
    bury(ledger, 1)


def test_a_second_writer_waits_for_the_first_and_then_succeeds(ledger: Ledger) -> None:
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        bury(ledger, 2)

    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            follower = pool.submit(second)
            assert waiting.wait(30)
            assert not follower.done()
            record_dead(connection, DeadEntry(Entry("s", "1-0", {}), "why"), NOW)
        follower.result()
    assert count(ledger) == 2


def test_a_writer_has_the_lock_from_its_beginning(
    path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.ledger, "BUSY_TIMEOUT_MS", 1)
    impatient = Ledger(f"sqlite:///{path}")
    assert count(impatient) == 0
    with ledger.write():  # nothing written yet
        with pytest.raises(LedgerUnavailable, match="locked"):
            bury(impatient, 2)
        assert count(impatient) == 0  # readers never wait
    bury(impatient, 2)
    impatient.close()


def test_a_reader_takes_no_lock_from_a_writer(ledger: Ledger) -> None:
    with ledger.read() as connection:
        assert count_outcomes(connection) == {}
        bury(ledger, 1)
        assert count_outcomes(connection) == {}


class BusyCursor:
    """Another process opens the same new file, so many times; SQLite itself would not wait."""

    def __init__(self, times: int, code: int) -> None:
        self.times = times
        self.code = code
        self.asked = 0

    def execute(self, _statement: str) -> None:
        self.asked += 1
        if self.asked <= self.times:
            error = sqlite3.OperationalError("told so by the test")
            error.sqlite_errorcode = self.code
            raise error


def test_a_new_file_that_others_open_too_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    cursor: Any = BusyCursor(3, sqlite3.SQLITE_BUSY)
    store.ledger._use_wal(cursor)
    assert cursor.asked == 4


def test_a_new_file_is_not_waited_for_without_end_or_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    full: Any = BusyCursor(9, sqlite3.SQLITE_FULL)
    with pytest.raises(sqlite3.OperationalError):
        store.ledger._use_wal(full)
    assert full.asked == 1
    monkeypatch.setattr(store.ledger, "BUSY_TIMEOUT_MS", -1)
    busy: Any = BusyCursor(9, sqlite3.SQLITE_BUSY)
    with pytest.raises(sqlite3.OperationalError):
        store.ledger._use_wal(busy)
    assert busy.asked == 1


def test_threads_that_come_first_together_share_one_engine(
    path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(4)
    make = store.ledger._engine

    def make_together(url: str, connections: int) -> Any:
        barrier.wait(30)
        return make(url, connections)

    monkeypatch.setattr(store.ledger, "_engine", make_together)
    fresh = Ledger(f"sqlite:///{path}")

    def used_engine(_: int) -> Any:
        with fresh.read() as connection:
            return connection.engine

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(used_engine, range(4)))) == 1
    fresh.close()


def test_a_forked_child_and_its_parent_write_through_engines_of_their_own(ledger: Ledger) -> None:
    bury(ledger, 1)
    with ledger.read() as connection:
        parents = connection.engine

    def work() -> None:
        bury(ledger, 2)
        with ledger.read() as connection:
            assert connection.engine is not parents
        ledger.close()

    assert in_a_child(work) == 0
    bury(ledger, 3)
    with ledger.read() as connection:
        assert connection.engine is parents
    assert count(ledger) == 3


def test_a_child_forked_within_a_transaction_leaves_it_alone(ledger: Ledger) -> None:
    def work() -> None:
        assert count(ledger) == 0
        ledger.close()

    with ledger.write() as connection:
        record_dead(connection, DeadEntry(Entry("s", "1-0", {}), "why"), NOW)
        assert in_a_child(work) == 0
    assert count(ledger) == 1


def test_a_full_disk_makes_the_ledger_unavailable_and_loses_nothing(ledger: Ledger) -> None:
    bury(ledger, 1)

    def fill() -> None:
        with ledger.write() as connection:
            pages = connection.execute(text("PRAGMA page_count")).scalar_one()
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            for number in range(2, 99):
                letter = DeadEntry(Entry("s", f"{number}-0", {b"data": os.urandom(50_000)}), "why")
                record_dead(connection, letter, NOW)

    with pytest.raises(LedgerUnavailable, match="full"):
        fill()

    ledger.close()
    assert count(ledger) == 1
    bury(ledger, 2)


def test_a_missing_folder_is_made(path: Path, ledger: Ledger) -> None:
    assert path.is_file()


def test_a_folder_that_cannot_be_made_makes_the_ledger_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnavailable, match="cannot make its folder"):
        Ledger(f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite3'}").migrate()


def test_a_folder_in_the_file_s_place_makes_the_ledger_unavailable(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="unable to open database file"):
        Ledger(f"sqlite:///{tmp_path}").migrate()


def test_a_read_only_folder_makes_the_ledger_unavailable() -> None:
    with read_only_folder() as folder, unprivileged():
        with pytest.raises(LedgerUnavailable, match="unable to open database file"):
            Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}").migrate()
        with pytest.raises(LedgerUnavailable, match="cannot make its folder"):
            Ledger(f"sqlite:///{folder / 'deeper' / 'ledger.sqlite3'}").migrate()


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """Not below pytest's own folder, which other users cannot even enter."""
    folder = Path(tempfile.mkdtemp(prefix="ledger-"))
    folder.chmod(0o555)
    try:
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions bind; they do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is not a database URL"),
        ("nonsense with hunter2", "is not a database URL"),
        ("postgresql://u:hunter2@h:notaport/db", "is not a database URL"),
        ("postgresql://u:a@hunter2@h/db", "percent-encoded"),
        ("postgresql://u:hunter2@h/db?nosuchoption=hunter2", 'option "nosuchoption"'),
        ("postgres://u:hunter2@h/db", "neither sqlite:///FILE nor postgresql://"),
        ("mysql://u:hunter2@h/db?password=hunter2", "neither sqlite:///FILE nor postgresql://"),
        ("sqlite://", "neither sqlite:///FILE nor postgresql://"),
        ("sqlite:///:memory:", "neither sqlite:///FILE nor postgresql://"),
    ],
)
def test_an_unusable_url_is_explained_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Ledger(url).migrate()
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)


def test_a_server_that_does_not_answer_is_unavailable_and_its_password_untold(
    tmp_path: Path,
) -> None:
    with pytest.raises(LedgerUnavailable, match="connection") as caught:
        Ledger(f"postgresql://u:hunter2@/db?host={tmp_path}").migrate()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", os.urandom(10_000), b'{"name": "_ga", "domain": ".example"},' * 3000],
    ids=["empty", "tiny", "noise", "json"],
)
def test_payloads_are_zlib_for_this_release_and_for_those_before(data: bytes) -> None:
    assert unpack(zlib.compress(data, 1)) == data
    assert zlib.decompress(pack(data)) == data
    assert unpack(pack(data)) == data
