"""The artifact store: rendered reports, in a folder or on S3, GCS or Azure.

``obstore`` puts whole objects: a reader sees the old artifact or the new one,
never half of one, also when the writer is killed.  In a folder a killed writer
leaves its unfinished file behind, which ``sweep_leftovers`` removes.  In a bucket
an artifact is one request, which leaves nothing; above ``LARGE`` it goes in parts,
each with its own time limit and retries, and a killed writer leaves parts that only
the bucket's own lifecycle rule can see and remove.

When ``put`` returns, the artifact is on disk: the ledger says ``ready`` on the
strength of it, and would be wrong after a power failure otherwise.  The library
does not sync, so the folder store does, after the rename: 1.1 ms more than the
0.3 ms of an unsynced put of 100 KB.  Of several, each is placed and then all are
settled: their folders are synced once.  Power lost in between, the ledger does not
say ``ready`` yet, and the artifact is rendered again.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from schemas.errors import ArtifactsUnavailable, InvalidSettings, NotFound

if TYPE_CHECKING:
    from obstore.store import RetryConfig

FEW_RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=15)}
"""Our own retries, which the ledger knows of, decide; left alone, the library tries for three
minutes.  Its own limits of a request are 5 s to connect and 30 s in all (``AWS_TIMEOUT`` and so
on in the environment), so one call ends within a minute, far below a task's soft limit."""

LEFTOVER = re.compile(r".+#[0-9]+")
"""The name under which the library writes before it renames; it refuses keys that look so."""

ADDRESS_AND_TIME = re.compile(r"Error performing ([A-Z]+) \S+ in \S+ - ")
ADDRESS_AND_TRIES = re.compile(
    r"Error performing ([A-Z]+) \S+ in \S+, after (\d+) retries, .*? - (?:HTTP error: )?"
)

LARGE = 16 * 1024 * 1024
"""Bytes above which an artifact goes into a bucket in parts: on a slow line a single request
would meet its time limit again with every try."""

PART = 8 * 1024 * 1024
"""Bytes of a part.  S3 wants 5 MiB at least."""

_ADVICE = {
    "NoSuchBucket": "there is no such bucket: make it, or mend ARTIFACTS_URL",
    "InvalidAccessKeyId": "the key is unknown there: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the key's secret is wrong: check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "the clocks of this machine and of the store differ: set them",
    "403 Forbidden": "the key may not do this: check it, and the bucket's policy "
    "(get, put, list and delete)",
    "error sending request": "nobody answers in time: check AWS_ENDPOINT and the network",
}
"""What to do, by what the store's answer says; the first that fits."""

LISTED = 1000
"""Artifacts of one look: a page of S3's listing, and what it deletes in one request."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An artifact in the store, and when it was put."""

    key: str
    size: int
    put_at: datetime


class ArtifactStore:
    """Artifacts by key, such as ``<scan id>/report.en.pdf``.

    Opened at first use: the library's threads do not survive a fork, so a
    process that forks must not have used it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: ObjectStore | None = None

    def put(self, key: str, data: bytes) -> None:
        """Store atomically and durably; a repeat replaces.  Raises ArtifactsUnavailable."""
        self.place(key, data)
        self.settle([key])

    def place(self, key: str, data: bytes) -> None:
        """Store atomically; durable once ``settle`` is told.  Raises ArtifactsUnavailable."""
        try:
            with _translated(key):
                store = self._store()
                in_parts = self.folder is None and len(data) > LARGE
                obstore.put(store, key, data, use_multipart=in_parts, chunk_size=PART)
                if self.folder is not None:
                    _sync(self.folder / key.lstrip("/"))
        except NotFound as error:  # no such bucket, or somebody took the folder away just now
            raise ArtifactsUnavailable(f"artifact {key}: {_said(error.__cause__)}") from error

    def settle(self, keys: Sequence[str]) -> None:
        """Make artifacts that were placed outlive a power failure; raises ArtifactsUnavailable.

        Those of one run lie in one folder, so for a few it costs little more than for one.
        """
        if self.folder is None:
            return
        try:
            with _translated(", ".join(keys)):
                for place in _folders_of(self.folder, keys):
                    _sync(place)
        except NotFound as error:  # somebody took the folder away, and with it what was placed
            raise ArtifactsUnavailable(f"artifacts of {keys[0]}: their folder is gone") from error

    def get(self, key: str) -> bytes:
        """Read whole.  Raises NotFound, ArtifactsUnavailable."""
        with _translated(key):
            return bytes(obstore.get(self._store(), key).bytes())

    def delete(self, key: str) -> None:
        """Delete; an absent key is fine.  Raises ArtifactsUnavailable."""
        try:
            with _translated(key):
                obstore.delete(self._store(), key)
        except NotFound:
            return

    def delete_many(self, keys: Sequence[str]) -> None:
        """Delete; absent keys are fine.  Raises ArtifactsUnavailable, with some deleted perhaps."""
        if self.folder is not None:  # its bulk deletion stops at the first that is absent
            for key in keys:
                self.delete(key)
            return
        for first in range(0, len(keys), LISTED):
            several = list(keys[first : first + LISTED])
            try:
                with _translated(keys[first]):
                    obstore.delete(self._store(), several)
            except NotFound:  # as Google's store says of one that is absent, leaving others
                for key in several:
                    self.delete(key)

    def is_there(self, key: str) -> bool:
        """Whether there is an artifact, without reading it.  Raises ArtifactsUnavailable."""
        try:
            with _translated(key):
                obstore.head(self._store(), key)
        except NotFound:
            return False
        return True

    def list_all(self, prefix: str | None = None) -> Iterator[list[Listed]]:
        """Every artifact, or those below a folder, page by page: memory stays flat.

        What is put or deleted meanwhile may be met or not.  Raises ArtifactsUnavailable.
        """
        with _translated(prefix or "list"):
            pages = iter(obstore.list(self._store(), prefix, chunk_size=LISTED))
        while True:
            with _translated(prefix or "list"):
                page = next(pages, None)
            if page is None:
                return
            yield [Listed(item["path"], item["size"], item["last_modified"]) for item in page]

    def sweep_leftovers(self, older_than: datetime) -> int:
        """Delete what killed puts left in a folder and return how many; 0 for any other store.

        Only files last written before ``older_than``: a younger one may belong
        to a put under way.  The library's own listing hides them, so the folder
        is walked.  Folders that are empty as long are removed on the way.
        Raises ArtifactsUnavailable.
        """
        self._store()  # refuses a bad URL, makes a missing folder
        folder = self.folder
        if folder is None:
            return 0
        try:
            swept = sum(_delete_if_older(path, older_than) for path in _leftovers(folder))
            _remove_empty_folders(folder, older_than)
            return swept
        except OSError as error:
            raise ArtifactsUnavailable(f"artifact folder {folder}: {_said(error)}") from error

    @property
    def bulk(self) -> int:
        """So many artifacts are deleted at the cost of one."""
        return 1 if self.folder is not None else LISTED

    @cached_property
    def folder(self) -> Path | None:
        """Where a folder store lies; None for any other."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def uri(self, key: str) -> str:
        """Where a person or program finds the artifact: a path for a folder, else a URI."""
        if self.folder is not None:
            return str(self.folder / key)
        parts = urlsplit(self.url)
        bucket = parts.netloc.rpartition("@")[2]  # a URI is shown, credentials are not
        return f"{parts.scheme}://{bucket}{parts.path.rstrip('/')}/{key}"

    def presigned(self, uri: str, expires_in: timedelta) -> str:
        """A link by which whoever has it can read an artifact of our bucket until it expires.

        Made without asking the store, so the artifact may be gone.  Any other address,
        and a path, comes back as it is.  Raises ArtifactsUnavailable without a key to
        sign with.
        """
        ours = self.uri("")
        if self.folder is not None or not uri.startswith(ours):
            return uri
        key = uri.removeprefix(ours)
        store = self._store()
        if not isinstance(store, S3Store | GCSStore | AzureStore):
            return uri
        with _translated(key):
            return obstore.sign(store, "GET", key, expires_in)

    def _store(self) -> ObjectStore:
        if self._opened is None:
            self._opened = _open(self.url)
        return self._opened


def _open(url: str) -> ObjectStore:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("s3", "gs", "az"):
            return from_url(url, retry_config=FEW_RETRIES)
        if parts.scheme != "file" or not parts.path:
            raise ValueError("no folder and no bucket")
    except (BaseError, ValueError):
        # the cause is left out, for it may quote the URL with its password
        raise InvalidSettings(
            "ARTIFACTS_URL is none of file:///FOLDER, "
            "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX"
        ) from None
    folder = Path(unquote(parts.path))
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        store = LocalStore(folder, mkdir=True)
        for path in made:
            _sync(path.parent)
    except (BaseError, ValueError, OSError) as error:
        raise ArtifactsUnavailable(f"artifact folder {folder}: {_said(error)}") from error
    return store


def _folders_of(folder: Path, keys: Sequence[str]) -> Iterator[Path]:
    """Every folder from the keys' up to ``folder``, once: any of them may be as new as they are."""
    found: dict[Path, None] = {}
    for key in keys:
        for place in (folder / key.lstrip("/")).parents:
            found[place] = None
            if place == folder:
                break
    return iter(found)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems know no sync of a folder, and need none
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _leftovers(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder, onerror=_raise):
        yield from (Path(place, name) for name in names if LEFTOVER.fullmatch(name))


def _delete_if_older(path: Path, older_than: datetime) -> bool:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_mtime >= older_than.timestamp():
            return False
        path.unlink()
    except FileNotFoundError:  # its put has ended just now, or another sweep was faster
        return False
    return True


def _remove_empty_folders(folder: Path, older_than: datetime) -> None:
    """What nothing was put into or deleted from lately; a put makes its folder anew."""
    for place, _, _ in os.walk(folder, topdown=False):
        path = Path(place)
        try:
            if path != folder and path.lstat().st_mtime < older_than.timestamp():
                path.rmdir()
        except OSError as error:  # not empty, or another sweep was faster
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise


def _raise(error: OSError) -> None:
    """A part of the folder that cannot be read is no empty one, as ``os.walk`` takes it."""
    raise error


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
        if "NoSuchBucket" in str(error):  # every artifact would look deleted
            raise ArtifactsUnavailable(f"artifact {key}: {_said(error)}") from error
        raise NotFound(f"no artifact {key}") from error
    except (BaseError, OSError) as error:
        raise ArtifactsUnavailable(f"artifact {key}: {_said(error)}") from error


def _said(error: BaseException | None) -> str:
    """The library's words in one bounded line: what was answered, and what to do about it.

    Its dump of inner structures goes, and so do the address and the microseconds,
    which are no help and would push the server's own word out of the bound.
    """
    said, _, _ = str(error).partition("\n\nDebug source")
    said = ADDRESS_AND_TIME.sub(r"\1: ", " ".join(said.split()))
    said = ADDRESS_AND_TRIES.sub(r"\1 (after \2 retries): ", said)
    advice = next((advice for word, advice in _ADVICE.items() if word in said), None)
    return f"{said[:400]}; {advice}" if advice else said[:400]
