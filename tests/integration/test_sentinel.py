"""The road behind sentinels: the primary is killed in mid-run, and everything goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.embedded import service_parts
from tests.redis_servers import Sentinels

pytestmark = pytest.mark.full


@pytest.fixture
def sentinels(service: Any, tmp_path: Path) -> Iterator[Sentinels]:
    """Two servers and three sentinels, as stream, broker and result backend of the service."""
    (tmp_path / "logs").mkdir()
    found = Sentinels(tmp_path)
    try:
        found.start()
        service.environment["REDIS_URL"] = found.url
        service.tend_too.append(lambda: None)
        yield found
    finally:
        found.stop()


@pytest.mark.timeout(240)
def test_a_killed_primary_is_replaced_and_every_part_goes_on(
    service: Any, sentinels: Sentinels, scans: list[bytes]
) -> None:
    service.environment |= {
        "SCANHERALD_RUN_DEADLINE_S": "8",
        "SCANHERALD_STARTING_GRACE_S": "3",
        "SCANHERALD_CLAIM_IDLE_MS": "3000",
    }
    for part in service_parts(service.environment, 2, service.folder / "logs"):
        service.supervisor.start(part)
    service.subscribe()
    with sentinels.client(0) as client:
        for data in scans[:6]:
            client.xadd("scans:events", {"data": data})
        assert client.wait(1, 5000) == 1  # what WAIT has confirmed is on the replica
    service.wait(lambda: len(service.reports()) > 3)

    sentinels.kill(0)
    killed = time.monotonic()
    service.wait(lambda: sentinels.primary() == 1)
    found_s = time.monotonic() - killed
    with sentinels.client(1) as client:
        for data in scans[6:]:
            client.xadd("scans:events", {"data": data})
    service.wait(lambda: service.settled(len(scans)), 90)
    print("named", found_s, "settled", time.monotonic() - killed)

    assert Counter(run["state"] for run in service.runs()) == {"done": len(scans)}
    assert len(service.reports()) == 4 * len(scans)
    sent = Counter(request.headers["webhook-id"] for request in service.sink.requests)
    assert set(sent) == {row["delivery_id"] for row in service.deliveries()}
    health = service.scanherald("health")
    print(health.stdout)
    audit = service.scanherald("audit")
    assert audit.returncode == 0, audit.stdout
    print(service.last_words())
    raise AssertionError
