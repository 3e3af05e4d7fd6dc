"""The artifact store: rendered reports, in a folder or on S3, GCS or Azure.

``obstore`` puts whole objects: a reader sees the old artifact or the new one,
never half of one, also when the writer is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from schemas.errors import ArtifactsUnavailable, InvalidSettings, NotFound


class ArtifactStore:
    """Artifacts by key, such as ``<scan id>/report.en.pdf``.

    Opened at first use: the library's threads do not survive a fork, so a
    process that forks must not have used it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: ObjectStore | None = None

    def put(self, key: str, data: bytes) -> None:
        """Store atomically; a repeat replaces.  Raises ArtifactsUnavailable."""
        with _translated(key):
            obstore.put(self._store(), key, data)

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

    def uri(self, key: str) -> str:
        """Where a person or program finds the artifact: a path for a folder, else a URI."""
        parts = urlsplit(self.url)
        if parts.scheme == "file":
            return str(Path(unquote(parts.path)) / key)
        bucket = parts.netloc.rpartition("@")[2]  # a URI is shown, credentials are not
        return f"{parts.scheme}://{bucket}{parts.path.rstrip('/')}/{key}"

    def _store(self) -> ObjectStore:
        if self._opened is None:
            self._opened = _open(self.url)
        return self._opened


def _open(url: str) -> ObjectStore:
    try:
        parts = urlsplit(url)
        if parts.scheme != "file":
            return from_url(url)
        if not parts.path:
            raise ValueError("no folder")
    except (BaseError, ValueError):
        # the cause is left out, for it may quote the URL with its password
        raise InvalidSettings(
            "ARTIFACTS_URL is none of file:///FOLDER, "
            "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX"
        ) from None
    try:
        return LocalStore(unquote(parts.path), mkdir=True)
    except (BaseError, ValueError, OSError) as error:
        raise ArtifactsUnavailable(f"artifact folder {parts.path}: {_said(error)}") from error


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
        raise NotFound(f"no artifact {key}") from error
    except (BaseError, OSError) as error:
        raise ArtifactsUnavailable(f"artifact {key}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
