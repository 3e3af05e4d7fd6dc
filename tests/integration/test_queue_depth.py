"""Asking the broker how much waits, in a process that outlives the broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from cli.embedded import wait_for_redis

ASKER = """
import sys
from schemas.errors import BrokerUnavailable
from schemas.settings import load_settings
from tasks import wiring
from tasks.queues import queue_depth

wiring.use(load_settings())
for _ in sys.stdin:
    try:
        print(queue_depth("reports"), flush=True)
    except BrokerUnavailable:
        print("away", flush=True)
"""


def test_a_queue_is_asked_again_when_its_broker_is_back(service: Any) -> None:
    service.start("nothing but the server")
    with subprocess.Popen(
        [sys.executable, "-c", ASKER],
        env={**os.environ, **service.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as asker:

        def ask() -> str:
            asker.stdin.write("\n")
            asker.stdin.flush()
            return asker.stdout.readline().strip()

        assert ask() == "0", "nobody has used the queue yet"
        with service.redis() as client:
            client.sadd("_kombu.binding.reports", "reports\x06\x16\x06\x16reports")
            client.rpush("reports", "a task")
        assert ask() == "1"
        pid = service.supervisor.pid("valkey")
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert [ask(), ask()] == ["away", "away"]
        service.wait(lambda: service.supervisor.pid("valkey") not in (None, pid))
        wait_for_redis(service.environment["REDIS_URL"])
        assert [ask(), ask()] == ["1", "1"]
        asker.stdin.close()
