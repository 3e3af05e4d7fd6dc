"""The one zip archive that there is for some files: stored, undated, in a given order.

Deflate is not used, because its output differs between versions of zlib.  Every
byte follows from the entries, so an archive is checked by writing it again:
no comment, extra field, attribute or byte around it can differ unseen.
Any unzip program opens it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

from schemas.errors import InvalidBundle

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")

_LOCAL_MARK = b"PK\x03\x04"

VERSION = 20
"""PKZIP 2.0, which every unzip program of the last thirty years reads."""

MADE_ON = 3 << 8 | VERSION
"""On Unix, so that the attributes mean a file's mode."""

ATTRIBUTES = 0o100644 << 16
"""A regular file that its owner may write and everyone may read."""

UNDATED = 0x0021
"""1 January 1980, the first day that the format knows."""

NAME_BYTES = 64
"""Longest name that is read."""


def write_zip(entries: Mapping[str, bytes]) -> bytes:
    """The archive of ``entries``, in their order.  Names are ASCII; 4 GiB is far above a bundle."""
    return b"".join(piece for _, piece in _pieces(entries))


def read_entries(archive: bytes, *, at_most: int) -> dict[str, bytes]:
    """The files that an archive holds, read from its start and by nothing else.

    Their number and sizes are bounded by ``at_most`` and by the archive itself,
    for nothing in it is compressed.  Whoever trusts them calls ``check_zip``
    too.  Raises InvalidBundle.
    """
    entries: dict[str, bytes] = {}
    at = 0
    while archive.startswith(_LOCAL_MARK, at):
        if len(entries) == at_most:
            raise InvalidBundle(f"the archive holds more than {at_most} files")
        name, content, at = _read_entry(archive, at)
        if name in entries:
            raise InvalidBundle(f"{name} is twice in the archive")
        entries[name] = content
    if not entries:
        raise InvalidBundle("this is no bundle: it does not begin as a zip archive does")
    return entries


def check_zip(archive: bytes, entries: Mapping[str, bytes]) -> None:
    """Raise InvalidBundle unless ``archive`` is ``write_zip(entries)`` to the last bit."""
    at = 0
    for place, piece in _pieces(entries):
        if not archive.startswith(piece, at):
            raise InvalidBundle(f"{place} is not as the signer wrote it, from byte {at} on")
        at += len(piece)
    if at != len(archive):
        raise InvalidBundle(f"the archive is followed by {len(archive) - at} bytes of something")


def _pieces(entries: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The archive piece by piece, each with words for its place."""
    directory: list[tuple[str, bytes]] = []
    at = 0
    for name, content in entries.items():
        raw = name.encode("ascii")
        size = len(content)
        # version, flags, method, time, date, CRC-32, packed size, size, name's and extra's length
        common = (VERSION, 0, 0, 0, UNDATED, zlib.crc32(content), size, size, len(raw), 0)
        yield f"the header of {name}", _LOCAL.pack(_LOCAL_MARK, *common) + raw
        yield name, content
        # after the common part: comment's length, disk, internal and external attributes, offset
        record = _CENTRAL.pack(b"PK\x01\x02", MADE_ON, *common, 0, 0, 0, ATTRIBUTES, at) + raw
        directory.append((f"the directory's record of {name}", record))
        at += _LOCAL.size + len(raw) + size
    yield from directory
    length = sum(len(record) for _, record in directory)
    count = len(directory)
    yield "the archive's end", _END.pack(b"PK\x05\x06", 0, 0, count, count, length, at, 0)


def _read_entry(archive: bytes, at: int) -> tuple[str, bytes, int]:
    """Name and content of the entry at ``at``, and where the next one begins."""
    start = at + _LOCAL.size
    if start > len(archive):
        raise InvalidBundle("the archive is cut short")
    _, _, flags, method, *_, size, name_length, extra_length = _LOCAL.unpack_from(archive, at)
    name = archive[start : start + min(name_length, NAME_BYTES)].decode("ascii", "backslashreplace")
    if flags or method or extra_length or name_length > NAME_BYTES:
        raise InvalidBundle(
            f"{name!r} is compressed, encrypted or otherwise not stored as a bundle's files are"
        )
    start += name_length
    if start + size > len(archive):
        raise InvalidBundle(f"{name!r} is cut short: {size} bytes are announced")
    return name, archive[start : start + size], start + size
