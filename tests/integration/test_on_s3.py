"""The whole service with its artifacts in a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import update

from cli.embedded import free_port
from store.artifacts import ArtifactStore
from store.ledger import Ledger
from store.tables import reports
from tests.s3_server import SECRET, S3Server, serve_s3

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]  # a quarter of a minute


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[S3Server]:
    with serve_s3(tmp_path / "s3" / "buckets", "127.0.0.1", free_port()) as server:
        yield server


def said(service: Any, *arguments: str) -> Any:
    """What a command prints as JSON."""
    done = service.scanherald(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return orjson.loads(done.stdout)


def test_reports_links_bundles_orphans_and_cleanup_work_over_a_bucket(
    service: Any, bucket: S3Server, scans: list[bytes], tmp_path: Path
) -> None:
    service.environment |= bucket.environment()
    service.start()
    service.subscribe()
    service.publish(*({"data": data} for data in scans[:2]))
    service.wait(lambda: service.settled(2))

    digests = {row["uri"]: row["sha256"] for row in service.reports()}
    assert len(digests) == 8
    assert all(uri.startswith("s3://reports/prefix/") for uri in digests)
    stored = {
        f"s3://reports/{path.relative_to(bucket.folder / 'reports')}": hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in (bucket.folder / "reports").rglob("*")
        if path.is_file()
    }
    assert stored == digests

    told = [orjson.loads(request.body) for request in service.sink.requests]
    links = [link for event in told for link in event["data"].get("artifacts", ())]
    assert {link["sha256"] for link in links} == set(digests.values())
    with urllib.request.urlopen(links[0]["uri"], timeout=10) as answer:  # as its receiver would
        assert hashlib.sha256(answer.read()).hexdigest() == links[0]["sha256"]

    scan_id = service.reports()[0]["scan_id"]
    file = tmp_path / "proof.zip"
    said(service, "bundle", scan_id, "--output", str(file))
    assert service.scanherald("verify", str(file)).returncode == 0
    said(service, "audit")

    lost = next(row for row in service.reports() if row["format"] == "csv")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment().items():
            patch.setenv(name, value)
        store = ArtifactStore(service.environment["ARTIFACTS_URL"])
        store.delete(lost["uri"].removeprefix(store.uri("")))
    ledger = Ledger(service.settings.ledger_url)
    with ledger.write() as connection:
        old = datetime.now(UTC) - timedelta(days=40)
        connection.execute(update(reports).values(created_at=old, ready_at=old))
    ledger.close()
    (orphans,) = said(service, "cleanup", "orphans")["parts"]
    assert orphans["lost"] == 1
    gone = [row["uri"] for row in service.reports() if row["status"] == "expired"]
    assert gone == [lost["uri"]]

    service.environment["SCANHERALD_KEEP_NEWEST_SCANS"] = "0"
    (cleaned,) = said(service, "cleanup", "reports")["parts"]
    assert cleaned["bytes"] > 0
    assert {row["status"] for row in service.reports()} == {"expired"}
    assert not [path for path in (bucket.folder / "reports").rglob("*") if path.is_file()]
    said(service, "audit")
    assert SECRET not in service.last_words()
