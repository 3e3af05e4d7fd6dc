"""Every ledger with every broker and every artifact store: the same scans, the same kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cli.embedded import free_port
from tests.s3_server import serve_s3


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("artifacts", ["folder", "s3"])
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
@pytest.mark.parametrize("ledger", ["sqlite", "postgresql"])
def test_the_eleven_scans_and_a_killed_worker(
    ledger: str,
    broker: str,
    artifacts: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scans: list[bytes],
) -> None:
    monkeypatch.setenv("LEDGER", ledger)  # the service's fixture asks for it
    quick, judge = (request.getfixturevalue(name) for name in ("quick", "judge"))
    if broker == "rabbitmq":
        request.getfixturevalue("rabbitmq")
    with serve_s3(tmp_path / "s3" / "buckets", "127.0.0.1", free_port()) as bucket:
        if artifacts == "s3":
            quick.environment |= bucket.environment()
        quick.environment["SCANHERALD_RUN_DEADLINE_S"] = "15"  # as long as eight servers make it
        quick.start()
        quick.subscribe()
        quick.publish(*({"data": data} for data in scans))
        quick.wait(lambda: quick.reports())
        os.killpg(quick.supervisor.pid("worker"), signal.SIGKILL)
        quick.wait(lambda: quick.supervisor.pid("worker") is not None)
        judge.watch_recovery(quick, events=len(scans), timeout_s=100)
        judge.judge(quick, faults=1, events=len(scans), duplicates_at_most=2)
        urls = {str(row["uri"]).partition("://")[0] for row in quick.reports()}
        assert (urls == {"s3"}) == (artifacts == "s3")
        quick.kill()
