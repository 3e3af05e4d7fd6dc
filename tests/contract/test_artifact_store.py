"""What every artifact store promises, asked of a folder and of a real S3 server alike."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cli.embedded import free_port
from cli.sinks import HttpSink, SinkAnswer
from schemas.errors import ArtifactsUnavailable, NotFound
from store import artifacts
from store.artifacts import LARGE, ArtifactStore
from tests.s3_server import SECRET, S3Server, serve_s3

KEY = "scan/0123-4567/report.en.pdf"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of this file."""
    folder = tmp_path_factory.mktemp("s3") / "buckets"
    with serve_s3(folder, "127.0.0.1", free_port()) as running:
        yield running


@pytest.fixture
def bucket(
    server: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> ArtifactStore:
    """An empty part of the bucket."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return ArtifactStore(f"s3://reports/{abs(hash(request.node.name))}")


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "folder":
        return ArtifactStore(tmp_path.as_uri())
    store: ArtifactStore = request.getfixturevalue("bucket")
    return store


def keys(store: ArtifactStore, prefix: str | None = None) -> list[str]:
    return sorted(item.key for page in store.list_all(prefix) for item in page)


def test_what_was_put_is_there_and_can_be_read(any_store: ArtifactStore) -> None:
    assert not any_store.is_there(KEY)
    any_store.put(KEY, b"first")
    any_store.put(KEY, b"second")
    assert any_store.get(KEY) == b"second"
    assert any_store.is_there(KEY)


def test_what_is_not_there_is_not_found_and_deleted_without_a_word(
    any_store: ArtifactStore,
) -> None:
    with pytest.raises(NotFound, match="no artifact other"):
        any_store.get("other")
    any_store.delete("other")
    any_store.delete_many(["other", "another"])


def test_artifacts_are_listed_by_folder_and_deleted_together(any_store: ArtifactStore) -> None:
    names = [f"{folder}/{number}.pdf" for folder in ("a", "b") for number in range(3)]
    for name in names:
        any_store.put(name, name.encode())
    assert keys(any_store) == names
    assert keys(any_store, "b") == names[3:]
    any_store.delete_many([*names[:4], "none"])
    assert keys(any_store) == names[4:]


def test_a_large_artifact_arrives_whole(any_store: ArtifactStore) -> None:
    data = bytes(range(256)) * (LARGE // 256) + b"and more"
    any_store.put(KEY, data)
    assert any_store.get(KEY) == data
    (listed,) = [item for page in any_store.list_all() for item in page]
    assert listed.size == len(data)


def test_a_put_of_a_large_artifact_that_breaks_leaves_the_one_before(
    bucket: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, b"before")
    with HttpSink(answer=lambda _: SinkAnswer(500)) as broken:
        monkeypatch.setenv("AWS_ENDPOINT", broken.url)
        with pytest.raises(ArtifactsUnavailable, match="500 Internal Server Error"):
            ArtifactStore(bucket.url).put(KEY, b"x" * (LARGE + 1))
        assert {sent.method for sent in broken.requests} == {"POST"}, "it begins an upload in parts"
    assert bucket.get(KEY) == b"before"


def fetched(link: str) -> bytes:
    with urllib.request.urlopen(link, timeout=10) as answer:
        data: bytes = answer.read()
        return data


def test_a_signed_link_opens_for_anybody_until_it_expires(bucket: ArtifactStore) -> None:
    bucket.put(KEY, b"a report")
    uri = bucket.uri(KEY)
    link = bucket.presigned(uri, timedelta(seconds=60))
    assert fetched(link) == b"a report"
    assert SECRET not in link

    with pytest.raises(urllib.error.HTTPError) as unsigned:
        fetched(link.partition("?")[0])
    assert unsigned.value.code in (400, 403)
    unsigned.value.close()

    short = bucket.presigned(uri, timedelta(seconds=1))
    time.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError) as expired:
        fetched(short)
    assert expired.value.code in (400, 403)
    expired.value.close()
    assert fetched(link) == b"a report"


def test_only_what_is_ours_is_signed(bucket: ArtifactStore, tmp_path: Path) -> None:
    for uri in ("https://reports.example/x.pdf", "s3://reports-of-others/x", "/a/path"):
        assert bucket.presigned(uri, timedelta(hours=1)) == uri
    folder = ArtifactStore(tmp_path.as_uri())
    assert folder.presigned(folder.uri(KEY), timedelta(hours=1)) == folder.uri(KEY)


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "check AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "stranger"}, "check AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT": "http://127.0.0.1:9"}, "nobody answers in time: check AWS_ENDPOINT"),
    ],
)
def test_a_store_that_cannot_be_used_says_what_to_do(
    bucket: ArtifactStore, changed: dict[str, str], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, b"here")
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    refused = ArtifactStore(bucket.url)
    for work in (
        lambda: refused.put(KEY, b"1"),
        lambda: refused.get(KEY),
        lambda: refused.delete_many([KEY]),
        lambda: list(refused.list_all()),
    ):
        with pytest.raises(ArtifactsUnavailable) as caught:
            work()
        said = str(caught.value)
        assert advice in said
        assert "http://" not in said
        assert SECRET not in said
        assert "\n" not in said
    with pytest.raises(ArtifactsUnavailable, match="check"):
        refused.is_there(KEY)


def test_a_bucket_that_is_missing_is_no_store_without_artifacts(
    bucket: ArtifactStore,
) -> None:
    missing = ArtifactStore("s3://nobody-made-it")
    for work in (lambda: missing.put(KEY, b"1"), lambda: missing.get(KEY), missing.list_all):
        with pytest.raises(ArtifactsUnavailable, match="no such bucket: make it, or mend"):
            list(work() or ())


def test_a_store_that_is_slow_is_given_up_in_time(
    bucket: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "FEW_RETRIES", {"max_retries": 0})
    monkeypatch.setenv("AWS_TIMEOUT", "0.3s")

    def slowly(_: object) -> SinkAnswer:
        time.sleep(1)
        return SinkAnswer()

    with HttpSink(answer=slowly) as slow:
        monkeypatch.setenv("AWS_ENDPOINT", slow.url)
        began = time.monotonic()
        with pytest.raises(ArtifactsUnavailable, match="nobody answers in time"):
            ArtifactStore(bucket.url).get(KEY)
        assert time.monotonic() - began < 5
