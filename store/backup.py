"""A copy of a one-machine installation: its SQLite ledger and its folder of artifacts.

**The ledger first, the artifacts then.**  An artifact is put before the ledger
calls its report ready, so what the copied ledger knows is there to be copied
when its turn comes.  What is made meanwhile comes along as an artifact that no
report names, and the nightly search deletes it.  The other way round every
report that became ready between the two would be missing.  Only what is deleted
meanwhile, by a cleanup or an erasing, is missing now: it is counted.

Keys are no part of it: whoever has both reads every address.  The copy says only
by a digest which encryption key it needs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from schemas.errors import InvalidSettings, LedgerUnavailable
from store.artifacts import LEFTOVER

LEDGER, ARTIFACTS, MANIFEST = "ledger.sqlite3", "artifacts", "backup.json"

FORMAT = 1


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself; written last, so that one without it is half a backup."""

    format: int
    taken_at: datetime
    revision: str
    """Of the ledger's schema."""
    ledger_sha256: str
    artifacts: int
    bytes: int
    missing: int
    """Ready reports whose artifact was not there to be copied."""
    encryption_key: str
    """A digest that tells keys apart and gives none away."""


def take_backup(
    ledger: Path, artifacts: Path, target: Path, *, encryption_key: str, now: datetime
) -> Manifest:
    """Copy a ledger that may be in use, then its artifacts, into a new folder.

    The folder has its name only when all is in it and on disk; killed before,
    ``target.partial`` is left, and a repeat begins anew.  Raises InvalidSettings,
    LedgerUnavailable.
    """
    if target.exists():
        raise InvalidSettings(f"{target} is there already: name a folder that is not")
    if target.resolve().is_relative_to(artifacts.resolve()):
        raise InvalidSettings(f"{target} is among the artifacts: name a folder elsewhere")
    draft = target.with_name(f"{target.name}.partial")
    with _told(target):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        _copy_ledger(ledger, draft / LEDGER)
        count, size = _copy_artifacts(artifacts, draft / ARTIFACTS)
        manifest = Manifest(
            format=FORMAT,
            taken_at=now,
            revision=_revision(draft / LEDGER),
            ledger_sha256=_sha256(draft / LEDGER),
            artifacts=count,
            bytes=size,
            missing=sum(1 for _ in missing_artifacts(draft / LEDGER, draft / ARTIFACTS)),
            encryption_key=encryption_key,
        )
        _write(draft / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        draft.rename(target)
        _sync(target.parent)
    return manifest


def read_manifest(source: Path) -> Manifest:
    """What a backup says of itself.  Raises InvalidSettings for a folder that is no whole one."""
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidSettings(f"{source} is no whole backup: {MANIFEST}: {error}") from error
    if manifest.format != FORMAT:
        raise InvalidSettings(f"{source} was made by another release (format {manifest.format})")
    return manifest


def restore_backup(source: Path, ledger: Path, artifacts: Path) -> int:
    """Put a backup in place and return how many ready reports have no artifact.

    Artifacts first: a ledger that is there means that the restore has ended.
    Killed before, a repeat goes on.  Raises InvalidSettings, which names what is
    in the way or broken; nothing that is there is replaced.
    """
    manifest = read_manifest(source)
    # What a log holds would be written into the copy, whatever it was a log of.
    for there in (ledger, *(ledger.with_name(ledger.name + end) for end in ("-wal", "-shm"))):
        if there.exists():
            raise InvalidSettings(f"{there} is there already: move it away, with all beside it")
    with _told(source):
        if _sha256(source / LEDGER) != manifest.ledger_sha256:
            raise InvalidSettings(f"{source / LEDGER} is not what was backed up: it was changed")
        artifacts.mkdir(parents=True, exist_ok=True)
        _copy_artifacts(source / ARTIFACTS, artifacts)
        ledger.parent.mkdir(parents=True, exist_ok=True)
        draft = ledger.with_name(f"{ledger.name}.partial")
        _copy(source / LEDGER, draft)
        try:
            os.link(draft, ledger)  # a rename would replace what somebody has made meanwhile
        except FileExistsError as error:
            raise InvalidSettings(
                f"{ledger} was made while artifacts were copied: stop the service, move it away"
            ) from error
        draft.unlink()
        _sync(ledger.parent)
    return sum(1 for _ in missing_artifacts(source / LEDGER, artifacts))


def first_unrecorded(ledger: Path) -> str | None:
    """The entry id behind the newest that the ledger has, of the stream that is least far.

    None where it has none.  What another listener had in hand then may be older: the
    audit names it.
    """
    with _read(ledger) as connection:
        newest = connection.execute(
            "SELECT MAX(CAST(substr(entry_id, 1, instr(entry_id, '-') - 1) AS INTEGER)) "
            "FROM events WHERE stream IS NOT NULL AND instr(entry_id, '-') > 0 GROUP BY stream"
        ).fetchall()
        if not newest:
            return None
        (milliseconds,) = min(newest)
        (sequence,) = connection.execute(
            "SELECT MAX(CAST(substr(entry_id, instr(entry_id, '-') + 1) AS INTEGER)) FROM events "
            "WHERE entry_id LIKE ? || '-%'",
            (str(milliseconds),),
        ).fetchone()
    return f"{milliseconds}-{sequence + 1}"


def missing_artifacts(ledger: Path, artifacts: Path) -> Iterator[str]:
    """Keys of ready reports of which there is no artifact in the folder."""
    with _read(ledger) as connection:
        for (key,) in connection.execute(
            "SELECT artifact_key FROM reports WHERE status = 'ready' ORDER BY artifact_key"
        ):
            if not (artifacts / key).is_file():
                yield key


def _copy_ledger(source: Path, target: Path) -> None:
    """One consistent copy of a database in use: of its last committed state, without gaps."""
    try:
        with closing(_open(source)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"ledger: {source}: {error}") from error
    _sync(target)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=20)


@contextmanager
def _read(ledger: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(_open(ledger)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"ledger: {ledger}: {error}") from error


def _revision(ledger: Path) -> str:
    with _read(ledger) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(revision)


def _copy_artifacts(source: Path, target: Path) -> tuple[int, int]:
    """Every whole artifact; one that is deleted meanwhile is left out.  Returns count and bytes."""
    target.mkdir(parents=True, exist_ok=True)
    count = size = 0
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if LEFTOVER.fullmatch(name) or not path.is_file():
                continue
            copy = target / path.relative_to(source)
            try:
                if not copy.exists() or copy.stat().st_size != path.stat().st_size:
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    _copy(path, copy)
            except FileNotFoundError:
                if not source.exists():
                    raise
                continue
            count += 1
            size += copy.stat().st_size
    return count, size


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    _sync(target)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidSettings(f"{error.filename or path}: {error.strerror}") from error
