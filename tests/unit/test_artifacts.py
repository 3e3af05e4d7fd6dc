"""The artifact store on a folder, and what it says when the folder or the URL is no good."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas.errors import ArtifactsUnavailable, InvalidSettings, NotFound
from store.artifacts import ArtifactStore

KEY = "0b7b9f1e/report.en.pdf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "é %41 b"


@pytest.fixture
def artifacts(folder: Path) -> ArtifactStore:
    return ArtifactStore(folder.as_uri())


def test_what_was_put_is_got_and_lies_where_its_uri_says(
    artifacts: ArtifactStore, folder: Path
) -> None:
    data = bytes(range(256)) * 4096

    artifacts.put(KEY, data)

    assert artifacts.get(KEY) == data
    assert artifacts.uri(KEY) == str(folder / KEY)
    assert Path(artifacts.uri(KEY)).read_bytes() == data
    assert ArtifactStore(folder.as_uri()).get(KEY) == data


def test_nothing_is_made_before_it_is_used(artifacts: ArtifactStore, folder: Path) -> None:
    artifacts.uri(KEY)
    assert not folder.exists()


def test_an_empty_artifact_is_an_artifact(artifacts: ArtifactStore) -> None:
    artifacts.put(KEY, b"")
    assert artifacts.get(KEY) == b""


def test_a_repeat_replaces_the_whole_artifact_at_once(
    artifacts: ArtifactStore, folder: Path
) -> None:
    artifacts.put(KEY, b"the old and longer one")
    with (folder / KEY).open("rb") as reader:
        artifacts.put(KEY, b"the new one")
        assert reader.read() == b"the old and longer one"
    assert artifacts.get(KEY) == b"the new one"
    assert [path.name for path in (folder / KEY).parent.iterdir()] == [Path(KEY).name]


def test_an_absent_artifact_is_not_found(artifacts: ArtifactStore) -> None:
    with pytest.raises(NotFound, match=f"no artifact {KEY}"):
        artifacts.get(KEY)


def test_deleting_leaves_the_others_and_may_be_repeated(artifacts: ArtifactStore) -> None:
    artifacts.put(KEY, b"1")
    artifacts.put("other", b"2")
    artifacts.delete(KEY)
    artifacts.delete(KEY)
    with pytest.raises(NotFound):
        artifacts.get(KEY)
    assert artifacts.get("other") == b"2"


@pytest.mark.parametrize("key", ["../x", "a/../../x", "..", ".", "a//x", "a/./x", "a\x00x"])
def test_a_key_cannot_leave_the_folder(artifacts: ArtifactStore, folder: Path, key: str) -> None:
    (folder.parent).mkdir(parents=True)
    (folder.parent / "x").write_bytes(b"not ours")
    with pytest.raises(ValueError, match="parse path"):
        artifacts.put(key, b"1")
    with pytest.raises(ValueError, match="parse path"):
        artifacts.get(key)
    with pytest.raises(TypeError, match="path"):  # no single path, so it wants a list of them
        artifacts.delete(key)
    assert (folder.parent / "x").read_bytes() == b"not ours"
    assert list(folder.iterdir()) == []


def test_a_key_that_looks_absolute_stays_in_the_folder(
    artifacts: ArtifactStore, folder: Path
) -> None:
    artifacts.put("/etc/hostile", b"1")
    assert (folder / "etc" / "hostile").read_bytes() == b"1"


def test_a_file_in_the_folder_s_place_makes_the_store_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        artifacts = ArtifactStore(folder.as_uri())
        with pytest.raises(ArtifactsUnavailable, match="artifact folder"):
            artifacts.put(KEY, b"1")
        with pytest.raises(ArtifactsUnavailable, match="artifact folder"):
            artifacts.get(KEY)


def test_a_read_only_folder_makes_the_store_unavailable() -> None:
    with read_only_folder() as folder, unprivileged():
        with pytest.raises(ArtifactsUnavailable, match=KEY):
            ArtifactStore(folder.as_uri()).put(KEY, b"1")
        with pytest.raises(ArtifactsUnavailable, match="artifact folder"):
            ArtifactStore((folder / "deeper").as_uri()).put(KEY, b"1")


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """Not below pytest's own folder, which other users cannot even enter."""
    folder = Path(tempfile.mkdtemp(prefix="artifacts-"))
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
    "url",
    [
        "",
        "hunter2",
        "file://",
        "ftp://user:hunter2@h.example/x",
        "http://[hunter2",
        "s3://",
    ],
)
def test_a_bad_url_is_explained_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSettings, match="ARTIFACTS_URL") as caught:
        ArtifactStore(url).put(KEY, b"1")
    assert "s3://BUCKET" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("s3://bucket/prefix/", f"s3://bucket/prefix/{KEY}"),
        ("s3://bucket", f"s3://bucket/{KEY}"),
        ("s3://user:hunter2@bucket/prefix?token=hunter2", f"s3://bucket/prefix/{KEY}"),
        ("az://container/a%20b", f"az://container/a%20b/{KEY}"),
    ],
)
def test_a_uri_names_the_bucket_and_no_credentials(url: str, uri: str) -> None:
    assert ArtifactStore(url).uri(KEY) == uri
