"""The archive of a bundle: one way to write it, and nothing else is read."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidBundle
from store.plain_zip import NAME_BYTES, check_zip, read_entries, write_zip

FILES = {"a.txt": b"alpha", "b.bin": bytes(range(256)), "empty": b""}

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=NAME_BYTES)


def read(archive: bytes) -> dict[str, bytes]:
    entries = read_entries(archive, at_most=9)
    check_zip(archive, entries)
    return entries


def test_another_program_reads_what_was_written() -> None:
    with zipfile.ZipFile(io.BytesIO(write_zip(FILES))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert not archive.comment
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == 0o100644
            assert not info.extra


@given(st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=9))
def test_what_was_written_is_read_again(files: dict[str, bytes]) -> None:
    assert list(read(write_zip(files)).items()) == list(files.items())


@given(st.binary(max_size=400))
def test_nothing_else_is_taken_for_an_archive(data: bytes) -> None:
    for archive in (data, write_zip(FILES)[:60] + data):
        with pytest.raises(InvalidBundle):
            read(archive)


def test_every_bit_counts() -> None:
    archive = write_zip(FILES)
    for position in range(8 * len(archive)):
        changed = bytearray(archive)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(InvalidBundle):
            read(bytes(changed))


def test_every_byte_is_needed_and_none_may_be_added() -> None:
    archive = write_zip(FILES)
    for length in range(len(archive)):
        with pytest.raises(InvalidBundle):
            read(archive[:length])
    with pytest.raises(InvalidBundle, match="followed by 1 bytes of something"):
        read(archive + b"\0")
    with pytest.raises(InvalidBundle, match="does not begin as a zip archive"):
        read(b"\0" + archive)


def zipped(**options: object) -> bytes:
    """The same files by another program, with an option that is not ours."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in FILES.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            for option, value in options.items():
                setattr(info, option, value)
            archive.writestr(info, content)
    return target.getvalue()


def test_the_other_program_without_an_option_writes_the_same_bytes() -> None:
    assert zipped() == write_zip(FILES)


@pytest.mark.parametrize(
    "option",
    [
        {"compress_type": zipfile.ZIP_DEFLATED},
        {"extra": b"\x99\x99\x02\x00hi"},
        {"comment": b"hi"},
        {"date_time": (2026, 1, 1, 0, 0, 0)},
        {"create_system": 0},
        {"external_attr": 0o120777 << 16},
        {"internal_attr": 1},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_archive_written_otherwise_is_refused(option: dict[str, object]) -> None:
    with pytest.raises(InvalidBundle):
        read(zipped(**option))


def test_a_compressed_file_is_refused_before_anything_grows() -> None:
    with pytest.raises(InvalidBundle, match=r"'a.txt' is compressed, encrypted or otherwise"):
        read_entries(zipped(compress_type=zipfile.ZIP_DEFLATED), at_most=9)


def test_the_number_of_files_is_bounded() -> None:
    archive = write_zip({str(number): b"" for number in range(10)})
    with pytest.raises(InvalidBundle, match="more than 9 files"):
        read_entries(archive, at_most=9)


def test_a_file_that_is_there_twice_is_refused() -> None:
    once = write_zip({"a": b"1"})
    entry = once[: once.index(b"PK\x01\x02")]
    with pytest.raises(InvalidBundle, match="a is twice in the archive"):
        read_entries(entry + once, at_most=9)
