"""The box that holds subscribers' addresses, and the key file that opens it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from schemas.errors import InvalidSettings
from store.secrets import SecretBox, open_secret_box

PLAIN = b"dpo@example.org\x00whsec_tokenish"


def key() -> str:
    return Fernet.generate_key().decode()


def test_a_sealed_secret_opens_and_does_not_show() -> None:
    box = SecretBox([key()])
    sealed = box.seal(PLAIN)
    assert b"example.org" not in sealed
    assert b"tokenish" not in sealed
    assert box.open(sealed) == PLAIN
    assert box.seal(PLAIN) != sealed


def test_a_new_key_in_front_seals_and_the_old_one_still_opens() -> None:
    old, new = key(), key()
    sealed = SecretBox([old]).seal(PLAIN)

    rotated = SecretBox([new, old])

    assert rotated.open(sealed) == PLAIN
    assert SecretBox([new]).open(rotated.seal(PLAIN)) == PLAIN


@pytest.mark.parametrize("damage", [lambda sealed: sealed[:-1], lambda _: b"", lambda _: b"\xff"])
def test_a_secret_that_no_key_opens_is_explained(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(InvalidSettings, match="add the key it was written with"):
        SecretBox([key()]).open(SecretBox([key()]).seal(PLAIN))
    box = SecretBox([key()])
    with pytest.raises(InvalidSettings, match="SCANHERALD_ENCRYPTION_KEYS"):
        box.open(damage(box.seal(PLAIN)))


@pytest.mark.parametrize("bad", ["", "hunter2", "hunter2é", "A" * 43, "A" * 60])
def test_a_bad_key_is_explained_and_not_shown(bad: str) -> None:
    with pytest.raises(InvalidSettings, match="SCANHERALD_ENCRYPTION_KEYS: each key") as caught:
        SecretBox([key(), bad])
    assert not bad or bad not in str(caught.value)
    assert "generate_key" in str(caught.value)


def test_digests_tell_secrets_apart_and_depend_on_the_key() -> None:
    one, other = (Fernet.generate_key().decode() for _ in range(2))
    box = SecretBox([one])
    assert box.digest("a", "b") == SecretBox([one, other]).digest("a", "b")
    assert len({box.digest("a", "b"), box.digest("ab"), box.digest("a", "b", "")}) == 3
    assert box.digest("a\ud800") != SecretBox([other, one]).digest("a\ud800")


def test_a_box_without_keys_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="SCANHERALD_ENCRYPTION_KEYS"):
        SecretBox([])


def test_keys_of_the_settings_need_no_file(tmp_path: Path) -> None:
    keys = [key()]
    assert SecretBox(keys).open(open_secret_box(keys, tmp_path / "data").seal(PLAIN)) == PLAIN
    assert list(tmp_path.iterdir()) == []


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    before = os.umask(0)
    try:
        sealed = open_secret_box((), folder).seal(PLAIN)
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    written = path.read_bytes()

    assert path.name == "encryption.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_nlink == 1
    assert open_secret_box((), folder).open(sealed) == PLAIN
    assert path.read_bytes() == written


def test_makers_in_threads_agree_on_one_key(tmp_path: Path) -> None:
    for round_number in range(20):
        folder = tmp_path / str(round_number)
        barrier = threading.Barrier(4)

        def seal(_: int, folder: Path = folder, barrier: threading.Barrier = barrier) -> bytes:
            barrier.wait(30)
            return open_secret_box((), folder).seal(PLAIN)

        with ThreadPoolExecutor(4) as pool:
            sealed = list(pool.map(seal, range(4)))

        box = open_secret_box((), folder)
        assert [box.open(item) for item in sealed] == [PLAIN] * 4
        assert [path.name for path in folder.iterdir()] == ["encryption.key"]


def test_makers_in_processes_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from store.secrets import open_secret_box; "
        "print(flush=True); sys.stdin.read(); "
        "print(open_secret_box((), Path(sys.argv[1])).seal(b'x').decode())"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "\n"  # imported and ready
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.close()
        maker.stdin = None
    sealed = [maker.communicate(timeout=60)[0] for maker in makers]

    box = open_secret_box((), tmp_path)
    assert [box.open(item.strip().encode()) for item in sealed] == [b"x"] * 3


def test_a_maker_that_was_killed_before_us_leaves_nothing_in_our_way(tmp_path: Path) -> None:
    (tmp_path / f"encryption.key.{os.getpid()}").write_bytes(b"half a k")
    sealed = open_secret_box((), tmp_path).seal(PLAIN)
    assert open_secret_box((), tmp_path).open(sealed) == PLAIN


@pytest.mark.parametrize("content", [b"", b"hunter2", b"\xff\xfe\x00", b"A" * 44 + b"B"])
def test_a_broken_key_file_is_named_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "encryption.key"
    path.write_bytes(content)
    with pytest.raises(InvalidSettings) as caught:
        open_secret_box((), tmp_path)
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_key_file_with_a_line_end_is_fine(tmp_path: Path) -> None:
    made = key()
    (tmp_path / "encryption.key").write_text(f"{made}\r\n")
    assert SecretBox([made]).open(open_secret_box((), tmp_path).seal(PLAIN)) == PLAIN


def test_a_folder_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSettings, match="cannot be used"):
        open_secret_box((), tmp_path / "file")
    (tmp_path / "data" / "encryption.key").mkdir(parents=True)
    with pytest.raises(InvalidSettings, match="cannot be used"):
        open_secret_box((), tmp_path / "data")
