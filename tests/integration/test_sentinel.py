"""The road behind sentinels: the primary is killed in mid-run, and everything goes on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cli.embedded import service_parts
from tests.redis_servers import Sentinels

pytestmark = pytest.mark.full


@pytest.mark.timeout(400)
def test_a_killed_primary_is_replaced_and_every_part_goes_on_with_nothing_lost(
    service: Any, sentinels: Sentinels, scans: list[bytes]
) -> None:
    service.environment |= {
        "SCANHERALD_RUN_DEADLINE_S": "8",
        "SCANHERALD_STARTING_GRACE_S": "3",
        "SCANHERALD_CLAIM_IDLE_MS": "3000",
    }
    parts = service_parts(service.environment, 2, service.folder / "logs")
    for part in parts:
        service.supervisor.start(part)
    service.subscribe()
    before = 6
    assert sentinels.publish(*({"data": data} for data in scans[:before])) == 1
    service.wait(lambda: len(service.reports()) > 3)
    assert not service.settled(before)

    sentinels.kill(0)
    service.wait(lambda: sentinels.primary() == 1)
    sentinels.publish(*({"data": data} for data in scans[before:]))
    service.wait(lambda: service.settled(len(scans)), 120)

    assert Counter(run["state"] for run in service.runs()) == {"done": len(scans)}
    assert len(service.reports()) == 4 * len(scans)
    sent = Counter(request.headers["webhook-id"] for request in service.sink.requests)
    assert set(sent) == {row["delivery_id"] for row in service.deliveries()}
    lost = [line for line in service.log_lines("listener") if line["event"] == "stream_lost"]
    assert lost, "the listener never noticed"
    for command in (("health",), ("audit",)):
        said = service.scanherald(*command)
        assert said.returncode == 0, said.stdout + said.stderr
