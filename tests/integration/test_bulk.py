"""Thousands of users told by one task, through a real worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from benchmarks.bulk import CONTESTANTS, add_users, measure

PLATFORM = """
import json, sys
from benchmarks.bulk import user_id
from tasks import send_bulk_notifications_async

users = [user_id(number) for number in range(int(sys.argv[1]))]
data = {"domain": "shop.example", "error": "DNS"}
task = send_bulk_notifications_async.delay("scan.failed", data, [*users, users[0], "nobody"])
print(json.dumps(task.get(timeout=250)))
"""

UNPACED = {
    "SCANHERALD_DESTINATION_PER_S": "0",
    "SCANHERALD_DESTINATION_IN_FLIGHT": "0",
}
"""The sink plays all receivers at once."""


def tell(service: Any, users: int) -> dict[str, Any]:
    """What the platform gets back for so many users, one of them named twice, and a stranger."""
    said = subprocess.run(
        [sys.executable, "-c", PLATFORM, str(users)],
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-3000:] + service.last_words()
    result: dict[str, Any] = json.loads(said.stdout)
    return result


@pytest.mark.parametrize(
    "users",
    [
        pytest.param(2_000, marks=[pytest.mark.full, pytest.mark.timeout(300)]),
        pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)
def test_thousands_of_users_are_told_each_once(service: Any, users: int) -> None:
    service.environment |= UNPACED
    add_users(service.settings, users, f"{service.sink.url}/hook")
    service.start("worker")
    assert tell(service, users) == {
        "event": "scan.failed",
        "total_users": users + 1,
        "successful_users": users,
        "failed_users": 1,
        "total_notifications": users,
    }
    service.wait(lambda: len(service.sink.requests) >= users, timeout_s=users / 20)
    service.wait(lambda: all(row["settled_at"] for row in service.deliveries()))
    assert Counter(row["state"] for row in service.deliveries()) == {"sent": users}
    sends = Counter(request.headers["webhook-id"] for request in service.sink.requests)
    assert set(sends) == {row["delivery_id"] for row in service.deliveries()}
    assert set(sends.values()) == {1}


@pytest.mark.full
def test_the_benchmark_tells_every_user_whoever_does_it() -> None:
    found = measure(20, 1)
    assert {name: bulk.contents for name, (bulk,) in found.items()} == {"ours": 1, "loop": 20}
    assert set(found) == set(CONTESTANTS)
