"""PostgreSQL stops and starts again while everything runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

pytestmark = pytest.mark.full


@pytest.fixture
def database(cluster: Any) -> Iterator[str]:
    """A migrated, empty database's URL."""
    cluster.administer("CREATE DATABASE restarted TEMPLATE migrated")
    yield cluster.url("restarted")
    cluster.administer("DROP DATABASE restarted WITH (FORCE)")


def test_what_a_stopped_postgresql_did_not_record_is_not_acknowledged(
    service: Any, scans: list[bytes], cluster: Any, database: str
) -> None:
    service.environment |= {"DATABASE_URL": database, "SCANHERALD_RETRY_MAX_S": "0.5"}
    service.start()
    service.subscribe()
    service.publish({"data": scans[0]})
    service.wait(lambda: len(service.reports()) > 0)

    with closing(service.redis()) as client:
        cluster.stop()  # in mid-run
        try:
            with client.pipeline() as at_once:  # so that one batch holds them all
                for data in scans[1:]:
                    at_once.xadd("scans:events", {"data": data})
                at_once.execute()
            service.wait(lambda: "ledger_unavailable" in events_of(service, "listener"))
            service.wait(lambda: {"task_retried", "task_failed"} & events_of(service, "worker"))
            assert pending(client) == len(scans) - 1
        finally:
            cluster.start()

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
