"""Key files in the data folder: made once, readable by their owner only."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from schemas.errors import InvalidSettings


def read_or_make_key_file(path: Path, make: Callable[[], bytes]) -> str:
    """The text of a key file, without white space around it; ``make`` gives a new one's content.

    Of two processes that make it at once, both read the same key.  Raises
    InvalidSettings where the file or its folder cannot be used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(path, make())
        return path.read_text("ascii", "replace").strip()
    except OSError as error:
        raise InvalidSettings(f"the key file {path} cannot be used: {error}") from error


def read_key_file(path: Path) -> str | None:
    """The same of a file that is there, or None; nothing is made.  Raises InvalidSettings."""
    try:
        return path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidSettings(f"the key file {path} cannot be used: {error}") from error


def _make(path: Path, content: bytes) -> None:
    """Write a new key beside and link it into place: of two makers one wins, none is half done."""
    with NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.") as draft:  # mode 0600
        draft.write(content)
        draft.flush()
        os.fsync(draft.fileno())
        with suppress(FileExistsError):  # another maker was first; its key is the one to use
            os.link(draft.name, path)
