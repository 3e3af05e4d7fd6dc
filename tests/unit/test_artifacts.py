"""The artifact store on a folder, and what it says when the folder or the URL is no good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import NotFoundError

from cli.sinks import HttpSink, SinkAnswer
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


def test_what_put_returned_from_is_on_disk_with_every_folder_above_it(
    artifacts: ArtifactStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    whole = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    artifacts.put(KEY, b"1")

    above = [folder.parent, folder.parent.parent]  # the first put makes these two
    assert synced == [*above, folder / KEY, (folder / KEY).parent, folder]
    synced.clear()
    artifacts.put(KEY, b"2")
    assert synced == [folder / KEY, (folder / KEY).parent, folder]


PUT_FOR_EVER = """
import sys
from store.artifacts import ArtifactStore
artifacts, data = ArtifactStore(sys.argv[1]), b"x" * 100_000_000
while True:
    artifacts.put(sys.argv[2], data)
"""


def test_a_put_that_was_killed_leaves_no_artifact_and_its_leftover_is_swept(
    artifacts: ArtifactStore, folder: Path
) -> None:
    staged = folder / f"{KEY}#1"
    writer = subprocess.Popen([sys.executable, "-c", PUT_FOR_EVER, folder.as_uri(), KEY])
    try:
        give_up = time.monotonic() + 30
        while not staged.exists():
            assert writer.poll() is None
            assert time.monotonic() < give_up
    finally:
        writer.kill()
        writer.wait()
    left = staged.stat()
    assert 0 <= left.st_size < 100_000_000
    with pytest.raises(NotFound):
        artifacts.get(KEY)

    written = datetime.fromtimestamp(int(left.st_mtime), UTC)  # a whole second, no float's error
    assert artifacts.sweep_leftovers(written) == 0, "a put under way is left alone"
    assert artifacts.sweep_leftovers(written + timedelta(seconds=1)) == 1
    assert not staged.exists()


def test_the_sweep_of_leftovers_takes_nothing_else(artifacts: ArtifactStore, folder: Path) -> None:
    artifacts.put(KEY, b"whole")
    others = ("notes#", "#1", "a#1.pdf", "a#x", "#")
    for name in others:
        (folder / name).touch()
    (folder / "folder#1").mkdir()
    (folder / "link#1").symlink_to(folder / KEY)
    (folder / "folder#1" / "report.en.csv#23").touch()

    assert artifacts.sweep_leftovers(datetime.now(UTC) + timedelta(days=1)) == 1
    assert artifacts.get(KEY) == b"whole"
    names = {path.name for path in folder.iterdir()}
    assert names == {*others, "link#1", Path(KEY).parent.name}  # folder#1 is empty now, and old


def test_folders_that_are_empty_and_old_go_with_the_leftovers(
    artifacts: ArtifactStore, folder: Path
) -> None:
    for scan in ("old", "young", "full"):
        artifacts.put(f"{scan}/a/report.en.csv", b"1")
    for scan in ("old", "young"):
        artifacts.delete(f"{scan}/a/report.en.csv")
    before = datetime.now(UTC) - timedelta(days=1)
    for scan in ("old/a", "old", "full/a", "full"):
        os.utime(folder / scan, (before.timestamp() - 1,) * 2)

    assert artifacts.sweep_leftovers(before) == 0
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {
        *("old", "young", "young/a"),  # "old" lost a folder just now: tomorrow it goes, too
        *("full", "full/a", "full/a/report.en.csv"),
    }


def test_a_bucket_keeps_no_leftovers_to_sweep() -> None:
    assert ArtifactStore("s3://bucket/prefix").sweep_leftovers(datetime.now(UTC)) == 0


def test_a_part_of_the_folder_that_cannot_be_read_is_not_taken_for_an_empty_one() -> None:
    with read_only_folder() as folder:
        (folder / "closed").mkdir(mode=0o700)
        with unprivileged(), pytest.raises(ArtifactsUnavailable, match="closed"):
            ArtifactStore(folder.as_uri()).sweep_leftovers(datetime.now(UTC))


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
        "https://user:hunter2@h.example/x",
        "s3://user:a#hunter2@bucket",
        "memory:///",
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


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpSink]:
    """An S3 endpoint that takes everything, until it is told what to answer."""
    with HttpSink(answer=lambda _: SinkAnswer(headers={"etag": '"1"'})) as sink:
        for name, value in s3_environment(sink).items():
            monkeypatch.setenv(name, value)
        yield sink


def s3_environment(sink: HttpSink) -> dict[str, str]:
    return {
        "AWS_ENDPOINT": sink.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-test-1",
        "AWS_ACCESS_KEY_ID": "key-id",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }


def test_a_large_artifact_is_one_request_so_a_killed_put_leaves_nothing_in_a_bucket(
    bucket: HttpSink,
) -> None:
    ArtifactStore("s3://bucket/prefix").put(KEY, b"x" * 6_000_000)
    assert [(sent.method, sent.path) for sent in bucket.requests] == [
        ("PUT", f"/bucket/prefix/{KEY}")
    ]
    assert bucket.requests[0].headers["content-length"] == "6000000"


def test_a_bucket_that_is_busy_for_a_moment_is_asked_again(bucket: HttpSink) -> None:
    bucket.script(SinkAnswer(503), SinkAnswer(500))
    ArtifactStore("s3://bucket").put(KEY, b"1")
    assert len(bucket.requests) == 3


@pytest.mark.parametrize(
    ("status", "code", "asked"),
    [(503, "SlowDown", 3), (403, "SignatureDoesNotMatch", 1), (404, "NoSuchBucket", 1)],
)
def test_a_bucket_that_refuses_is_unavailable_after_few_tries_and_says_why(
    bucket: HttpSink, status: int, code: str, asked: int
) -> None:
    said = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>No.</Message></Error>'
    bucket.script(*[SinkAnswer(status, body=said.encode())] * 3)
    with pytest.raises(ArtifactsUnavailable, match=code) as caught:
        ArtifactStore("s3://bucket").put(KEY, b"1")
    assert len(bucket.requests) == asked
    assert str(status) in str(caught.value)
    assert KEY in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_is_absent_stops_no_bulk_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"a", "c"}

    def delete(_: object, keys: str | list[str]) -> None:
        """As Google's store answers: several at once stop at the first that is absent."""
        for key in [keys] if isinstance(keys, str) else keys:
            if key not in left:
                raise NotFoundError(key)
            left.remove(key)

    monkeypatch.setattr(obstore, "delete", delete)
    ArtifactStore("gs://bucket").delete_many(["a", "b", "c"])
    assert left == set()


def test_of_several_that_were_placed_each_folder_is_synced_once(
    artifacts: ArtifactStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"scan/run/report.en.{name}" for name in ("pdf", "html", "csv")]
    for key in keys:
        artifacts.place(key, b"1")
    synced: list[Path] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink())
    )
    artifacts.settle(keys)
    assert synced == [folder / "scan/run", folder / "scan", folder]
    for key in keys:
        artifacts.delete(key)
    (folder / "scan/run").rmdir()
    with pytest.raises(ArtifactsUnavailable, match="their folder is gone"):
        artifacts.settle(keys)
