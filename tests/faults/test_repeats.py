"""The same event again: published twice, read again, published once more."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.faults.conftest import small_scans


@pytest.mark.faults
def test_every_event_twice_then_the_whole_stream_again_changes_nothing(
    quick: Any, judge: Any, scans: list[bytes]
) -> None:
    """Fault 10."""
    events = [*small_scans(20), *({"data": data} for data in scans)]
    quick.start()
    quick.subscribe()
    quick.publish(*events, *events)
    quick.wait(lambda: quick.settled(len(events)))
    sent = len(quick.sink.requests)

    quick.publish(*events)
    with contextlib.closing(quick.redis()) as client:
        client.xgroup_setid("scans:events", "scanherald", "0")  # as if nothing had been read
        quick.wait(lambda: client.xinfo_groups("scans:events")[0]["lag"] == 0)
        quick.wait(lambda: client.xpending("scans:events", "scanherald")["pending"] == 0)
    line = judge.judge(quick, faults=5 * len(events), events=len(events))
    assert line.effects == sent
