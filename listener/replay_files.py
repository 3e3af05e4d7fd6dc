"""Files as the source of a replay: JSON documents, lines of JSON, and folders of both.

A document is one scan result, or one CloudEvent in structured mode.  One is in
memory at a time, and no longer than an entry of the stream may be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from listener.replay_items import PAGE_BYTES, PAGE_ITEMS, Item, Page, Position, decoded_item
from schemas.errors import NotFound
from schemas.replays import Selection
from schemas.runs import Entry
from store.ledger import plain
from store.replayed import matches

LINES = (".jsonl", ".ndjson")
"""Files of these names hold a document per line, others one document."""

SUFFIXES = (".json", *LINES)
"""Files of these names are read in a folder; others are left alone."""

NAME_CHARACTERS = 200


class _Shape(msgspec.Struct):
    """Tells a CloudEvent from a scan result."""

    specversion: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    dataref: msgspec.Raw = msgspec.Raw()
    scan_id: msgspec.Raw = msgspec.Raw()


_shape = msgspec.json.Decoder(_Shape)


@dataclass(slots=True)
class _Gathering:
    """A page that is being filled."""

    items: list[Item] = field(default_factory=list)
    looked_at: int = 0
    size: int = 0

    def is_full(self) -> bool:
        return self.looked_at >= PAGE_ITEMS or self.size >= PAGE_BYTES


@dataclass(frozen=True, slots=True)
class _Document:
    """Bytes of one document, or why there are none."""

    line: int
    end: int
    """Where the next one begins, in bytes."""
    data: bytes = b""
    refused: str | None = None


class FileSource:
    """The documents of files and folders, in the order given and by name in a folder."""

    def __init__(self, selection: Selection, max_bytes: int) -> None:
        self._selection = selection
        self._arguments = [Path(name) for name in selection.files]
        self._max_bytes = max_bytes

    def pages(self, after: Position | None) -> Iterator[Page]:
        """The pages behind a document."""
        page = _Gathering()
        position = after
        for number, path, start in self._files(after):
            for document in self._documents(path, start):
                position = {
                    "argument": number,
                    "file": str(path),
                    "line": document.line,
                    "offset": document.end,
                }
                item = self._item(path, document, position)
                page.looked_at += 1
                page.size += len(document.data)
                if item.decoded is None or matches(self._selection, item.decoded.event):
                    page.items.append(item)
                if page.is_full():
                    yield Page(page.items, position)
                    page = _Gathering()
        if page.looked_at and position is not None:
            yield Page(page.items, position)

    def fraction(self, position: Position | None) -> float:
        """By the arguments, and within a file by its bytes."""
        if position is None:
            return 0.0
        path = Path(position["file"])
        within = 0.0
        if path == self._arguments[position["argument"]]:
            try:
                within = position["offset"] / max(1, path.stat().st_size)
            except OSError:
                within = 0.0
        return float(position["argument"] + min(1.0, within)) / len(self._arguments)

    def _files(self, after: Position | None) -> Iterator[tuple[int, Path, tuple[int, int]]]:
        """Each file with its argument's number, and the line and byte behind which to go on."""
        begun = after["argument"] if after else 0
        for number, argument in enumerate(self._arguments[begun:], start=begun):
            for path in walk(argument):
                if after is not None and number == begun:
                    reached = Path(after["file"])
                    if path.parts < reached.parts:
                        continue
                    if path == reached:
                        yield number, path, (after["line"], after["offset"])
                        continue
                yield number, path, (0, 0)

    def _documents(self, path: Path, start: tuple[int, int]) -> Iterator[_Document]:
        try:
            with path.open("rb") as file:
                if path.suffix.lower() in LINES:
                    file.seek(start[1])
                    yield from self._lines(file, *start)
                elif start[0] == 0:
                    yield self._whole(file)
        except OSError as error:
            yield _Document(start[0] + 1, start[1], refused=f"cannot be read: {error.strerror}")

    def _whole(self, file: BinaryIO) -> _Document:
        data = file.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            return _Document(1, len(data), refused=self._too_large())
        return _Document(1, len(data), data)

    def _lines(self, file: BinaryIO, line: int, end: int) -> Iterator[_Document]:
        while data := file.readline(self._max_bytes + 1):
            line += 1
            end += len(data)
            refused = None
            if len(data) > self._max_bytes and not data.endswith(b"\n"):
                refused = self._too_large()
                while not data.endswith(b"\n") and (data := file.readline(PAGE_BYTES)):
                    end += len(data)
                data = b""
            if data.strip() or refused:
                yield _Document(line, end, data, refused)

    def _too_large(self) -> str:
        return f"longer than {self._max_bytes:,} bytes (SCANHERALD_MAX_ENTRY_BYTES)"

    def _item(self, path: Path, document: _Document, position: Position) -> Item:
        shown = os.fsencode(path.name).decode("utf-8", "replace")
        name = f"{path}:{document.line}"
        if document.refused is not None:
            return Item(name, position, refused=document.refused)
        entry = Entry(
            plain(f"file:{shown}", NAME_CHARACTERS) or "file:",
            str(document.line),
            {b"event" if _is_cloud_event(document.data) else b"data": document.data},
        )
        return decoded_item(name, position, entry, self._max_bytes + len(b"event"))


def walk(argument: Path) -> Iterator[Path]:
    """A file, or the files of a folder and its folders by name.  Links to folders are not taken.

    Of each folder on the way the names alone are in memory.
    """
    if not argument.is_dir():
        yield argument
        return
    try:
        with os.scandir(argument) as found:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in found
                if entry.is_dir(follow_symlinks=False) or entry.name.lower().endswith(SUFFIXES)
            )
    except OSError:
        yield argument  # whoever opens it is told why it cannot be
        return
    for name, is_folder in names:
        path = argument / name
        if is_folder:
            yield from walk(path)
        elif path.is_file():
            yield path


def resolve(arguments: Sequence[Path]) -> tuple[str, ...]:
    """Absolute paths, so that a resumed replay finds them from anywhere.  Raises NotFound."""
    for argument in arguments:
        if not argument.exists():
            raise NotFound(f"there is no file or folder {argument}")
    return tuple(str(argument.absolute()) for argument in arguments)


def _is_cloud_event(document: bytes) -> bool:
    """Whether it has CloudEvents' own attribute, or its data and no scan of its own."""
    try:
        shape = _shape.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    carries = len(shape.data) or len(shape.dataref)
    return bool(len(shape.specversion) or (carries and not len(shape.scan_id)))
