"""Storage that fails: the run waits, says why, and ends when the storage is back."""

from __future__ import annotations

import errno
import hashlib
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.sinks import HttpSink, SinkAnswer, SunkRequest

SOON = {
    "SCANHERALD_TASK_MAX_RETRIES": "1",
    "SCANHERALD_RETRY_MAX_S": "0.5",
    "SCANHERALD_RUN_MAX_ATTEMPTS": "100",
}
"""Retries without the pauses that real outages need."""

pytestmark = pytest.mark.full  # a minute in all


def wait_for_reason(service: Any, reason: str) -> None:
    """Until the unfinished run says why it is late, and so does the log."""
    service.wait(lambda: any(reason in (run["last_error"] or "") for run in service.runs()))
    assert {run["state"] for run in service.runs()} & {"done", "dead"} == set()
    postponed = [line for line in service.log_lines("worker") if line["event"] == "run_postponed"]
    assert any(reason in line["error"] for line in postponed)


def check_done(service: Any) -> None:
    assert [run["state"] for run in service.runs()] == ["done"]
    assert [row["status"] for row in service.reports()] == ["ready"] * 4
    assert {row["state"] for row in service.deliveries()} == {"sent"}
    arrived = [request.headers["webhook-id"] for request in service.sink.requests]
    assert len(arrived) == len(set(arrived)) == len(service.deliveries()) > 0


def check_files(service: Any) -> None:
    for row in service.reports():
        assert hashlib.sha256(Path(row["uri"]).read_bytes()).hexdigest() == row["sha256"]


def test_an_unusable_folder_delays_the_run_until_it_is_mended(
    service: Any, scans: list[bytes], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "artifacts"
    in_the_way.touch()
    service.environment |= SOON | {"ARTIFACTS_URL": in_the_way.as_uri()}
    service.start()
    service.subscribe()
    service.publish({"data": scans[0]})
    wait_for_reason(service, f"artifact folder {in_the_way}: ")

    in_the_way.unlink()
    service.wait(lambda: service.settled(1))
    check_done(service)
    check_files(service)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    said = subprocess.run(mount, capture_output=True, text=True, timeout=20, check=False)
    if said.returncode != 0:
        if may_mount():
            pytest.fail(said.stderr)
        pytest.skip("a full disk needs the right to mount a small one (CAP_SYS_ADMIN)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], timeout=20, check=True)


def may_mount() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 21 & 1)
    return False


def fill(disk: Path) -> Path:
    """Leave no byte free; returns what to delete."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while _fits(file, b"x" * 4096):
            pass
    return filler


def _fits(file: Any, block: bytes) -> bool:
    try:
        return bool(file.write(block))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


def test_a_full_disk_delays_the_run_until_there_is_room(
    service: Any, scans: list[bytes], small_disk: Path
) -> None:
    filler = fill(small_disk)
    service.environment |= SOON | {"ARTIFACTS_URL": (small_disk / "artifacts").as_uri()}
    service.start()
    service.subscribe()
    service.publish({"data": scans[0]})
    wait_for_reason(service, "No space left on device")

    filler.unlink()
    service.wait(lambda: service.settled(1))
    check_done(service)
    check_files(service)
    assert [path for path in small_disk.rglob("*") if "#" in path.name] == []


@pytest.fixture
def bucket() -> Iterator[HttpSink]:
    """An S3 endpoint: takes everything, until it is told what to answer."""
    with HttpSink(answer=lambda _: SinkAnswer(headers={"etag": '"1"'})) as sink:
        yield sink


def on_s3(bucket: HttpSink) -> dict[str, str]:
    return {
        "ARTIFACTS_URL": "s3://reports/prefix",
        "AWS_ENDPOINT": bucket.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-test-1",
        "AWS_ACCESS_KEY_ID": "key-id",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }


def s3_error(status: int, code: str) -> SinkAnswer:
    text = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>No.</Message></Error>'
    return SinkAnswer(status, body=text.encode())


def test_a_busy_bucket_delays_the_run_until_it_takes_the_artifacts(
    service: Any, scans: list[bytes], bucket: HttpSink
) -> None:
    busy = True

    def answer(_: SunkRequest) -> SinkAnswer:
        return s3_error(503, "SlowDown") if busy else SinkAnswer(headers={"etag": '"1"'})

    bucket._answer = answer
    service.environment |= SOON | on_s3(bucket)
    service.start()
    service.subscribe()
    service.publish({"data": scans[0]})
    wait_for_reason(service, "503 Service Unavailable")
    wait_for_reason(service, "SlowDown")

    busy = False
    service.wait(lambda: service.settled(1))
    check_done(service)
    stored = {request.path: request.body for request in bucket.requests}
    for row in service.reports():
        path = row["uri"].removeprefix("s3:/")
        assert hashlib.sha256(stored[path]).hexdigest() == row["sha256"]


def test_a_bucket_that_refuses_our_key_ends_the_run_dead_and_says_so(
    service: Any, scans: list[bytes], bucket: HttpSink
) -> None:
    bucket._answer = lambda _: s3_error(403, "SignatureDoesNotMatch")
    service.environment |= SOON | on_s3(bucket) | {"SCANHERALD_RUN_MAX_ATTEMPTS": "2"}
    service.start()
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))

    letters = orjson.loads(service.scanherald("dead-letters", "--json").stdout)
    assert len(letters) == 1
    reason = letters[0]["reason"]
    assert reason.startswith("gave up after 2 attempts: ")
    assert "403 Forbidden" in reason
    assert "SignatureDoesNotMatch" in reason
    assert "http://" not in reason, "the same fault reads the same: no address, no duration"
    assert "hunter2" not in reason + service.last_words()
    assert service.runs()[0]["state"] == "dead"


IMPATIENT = """
import store.ledger
store.ledger.BUSY_TIMEOUT_MS = 300
"""
"""As Python's own start-up file: nobody waits 20 s for a lock."""


def test_what_a_locked_ledger_did_not_record_is_not_acknowledged(
    service: Any, scans: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(IMPATIENT)
    service.environment |= SOON | {"PYTHONPATH": str(tmp_path / "patch")}
    service.start()
    service.subscribe()
    service.publish({"data": scans[0]})
    service.wait(lambda: len(service.reports()) > 0)  # the lock comes in mid-run

    with (
        closing(sqlite3.connect(tmp_path / "data" / "ledger.sqlite3", isolation_level=None)) as one,
        closing(service.redis()) as client,
    ):
        one.execute("BEGIN IMMEDIATE")
        with client.pipeline() as at_once:  # so that one batch holds them all
            for data in scans[1:]:
                at_once.xadd("scans:events", {"data": data})
            at_once.execute()
        service.wait(lambda: "ledger_unavailable" in events_of(service, "listener"))
        service.wait(lambda: bool({"task_retried", "task_failed"} & events_of(service, "worker")))
        assert pending(client) == len(scans) - 1
        assert len(service.runs()) == 1
        one.execute("ROLLBACK")

        service.wait(lambda: service.settled(len(scans)))
        service.wait(lambda: pending(client) == 0)
    assert service.dead_letters() == []
    assert [run["state"] for run in service.runs()] == ["done"] * len(scans)
    assert [row["status"] for row in service.reports()] == ["ready"] * 4 * len(scans)
    arrived = [request.headers["webhook-id"] for request in service.sink.requests]
    assert len(arrived) == len(set(arrived)) == len(service.deliveries()) > 0


def pending(client: Any) -> int:
    count: int = client.xpending("scans:events", "scanherald")["pending"]
    return count


def events_of(service: Any, part: str) -> set[str]:
    return {line["event"] for line in service.log_lines(part)}
