"""The same event again: published twice, read again, published once more."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from sqlalchemy import func, select

from store.tables import events
from tests.faults.conftest import small_scans


def seen(quick: Any) -> int:
    """How often all events came in, as the ledger counted."""
    (total,) = quick.rows(lambda one: list(one.execute(select(func.sum(events.c.seen))).scalars()))
    return int(total)


def made(quick: Any) -> dict[str, Any]:
    """Everything that an event brings about."""
    return {
        "runs": [(run["run_id"], run["attempt"], run["settled_at"]) for run in quick.runs()],
        "reports": [(row["report_id"], row["tries"], row["ready_at"]) for row in quick.reports()],
        "deliveries": {row["delivery_id"]: row["tries"] for row in quick.deliveries()},
        "requests": len(quick.sink.requests),
    }


@pytest.mark.faults
def test_every_event_twice_then_the_whole_stream_again_changes_nothing(
    quick: Any, judge: Any, scans: list[bytes]
) -> None:
    """Fault 10."""
    published = [*small_scans(20), *({"data": data} for data in scans)]
    # no sweep begins a further attempt of what only waits for a slow machine
    quick.environment["SCANHERALD_RUN_DEADLINE_S"] = "60"
    quick.start()
    quick.subscribe()
    quick.publish(*published, *published)
    quick.wait(lambda: quick.settled(len(published)))
    before = made(quick)

    quick.publish(*published)
    with contextlib.closing(quick.redis()) as client:
        client.xgroup_setid("scans:events", "scanherald", "0")  # as if nothing had been read
        quick.wait(lambda: client.xinfo_groups("scans:events")[0]["lag"] == 0)
        quick.wait(lambda: client.xpending("scans:events", "scanherald")["pending"] == 0)
    judge.judge(quick, faults=seen(quick) - len(published), events=len(published))
    assert seen(quick) >= 5 * len(published), "each was published three times, and read twice again"
    assert made(quick) == before
