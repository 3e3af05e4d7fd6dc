"""Several listeners, workers and beats on one PostgreSQL: no deadlock, and nothing runs twice."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from tests.faults.conftest import small_scans
from tests.postgresql import Cluster

STREAMS = ("scans:events:0", "scans:events:1", "scans:events:2")
EVENTS = 60

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]  # needs PostgreSQL


def deadlocks(cluster: Cluster) -> int:
    """How many the server has resolved by refusing one of the two."""
    ((count,),) = cluster.administer("SELECT sum(deadlocks) FROM pg_stat_database")
    return int(count)


def held(cluster: Cluster) -> Counter[str]:
    """Connections of the service by state."""
    rows = cluster.administer(
        "SELECT coalesce(state, '-'), count(*) FROM pg_stat_activity "
        "WHERE datname = 'service' GROUP BY 1"
    )
    return Counter(dict(rows))


def test_listeners_workers_and_sweeps_of_several_processes_share_one_database(
    on_postgresql: str, service: Any, cluster: Cluster
) -> None:
    chance = random.Random(7)
    service.environment |= {
        "DATABASE_URL": on_postgresql,
        "SCANHERALD_STREAMS": ",".join(STREAMS),
        "SCANHERALD_BATCH_ENTRIES": "7",
        "SCANHERALD_SWEEP_INTERVAL_S": "0.5",
        "SCANHERALD_FORMATS": "json,csv",
    }
    before = deadlocks(cluster)
    service.start("nothing but the server")
    service.subscribe()
    events = small_scans(EVENTS)
    twice = [(event, stream) for event in events for stream in chance.sample(STREAMS, 2)]
    for event, stream in chance.sample(twice, len(twice)):
        service.publish(event, stream=stream)
    for number in (1, 2):
        service.start_another("worker", f"worker-{number}")
        service.start_another("listener", f"listener-{number}")
        for beat in (number, number + 2):  # four sweeps in a half second, if each claims its tick
            folder = str(service.folder / f"beat-{beat}")
            service.start_another("beat", f"beat-{beat}", SCANHERALD_DATA_DIR=folder)
    most = Counter[str]()

    def settled() -> bool:
        most.update({"most": max(0, sum(held(cluster).values()) - most["most"])})
        return service.settled(EVENTS)

    service.wait(settled, 100)
    service.wait(lambda: seen(service) == 2 * EVENTS)

    assert deadlocks(cluster) == before
    assert [run["state"] for run in service.runs()] == ["done"] * EVENTS
    assert Counter(row["status"] for row in service.reports()) == {"ready": 2 * EVENTS}
    begun = Counter(
        line["task_id"]
        for number in (1, 2)
        for line in service.log_lines(f"worker-{number}")
        if line["event"] == "task_started" and line["task"] == "scanherald.render_and_finish"
    )
    assert set(begun.values()) == {1}, "no attempt was published twice"
    sends = Counter(request.headers["webhook-id"] for request in service.sink.requests)
    assert set(sends.values()) == {1}
    assert set(sends) == {row["delivery_id"] for row in service.deliveries()}
    audit = service.scanherald("audit", "--json")
    assert audit.returncode == 0, audit.stdout[-3000:]
    print(f"{EVENTS} events twice, 0 deadlocks, {most['most']} connections at most")


def seen(service: Any) -> int:
    """Entries that the ledger has counted."""
    rows = service.rows(
        lambda connection: [connection.exec_driver_sql("SELECT sum(seen) FROM events").scalar_one()]
    )
    return int(rows[0])
