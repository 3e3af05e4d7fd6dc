"""The road with Redis that speaks TLS alone and lets nobody do more than needed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.embedded import free_port, service_parts, wait_for_redis
from tests.authority import Authority
from tests.redis_servers import documented_acl, secure_part

pytestmark = pytest.mark.full

ACL = """
user default off
user scanherald on >p%w0 ~* &* +@all
user platform on >q ~scans:events -@all +xadd
"""


def test_explore(service: Any, tmp_path: Path, scans: list[bytes]) -> None:
    authority = Authority(tmp_path)
    root = authority.root_file()
    port = free_port()
    (tmp_path / "logs").mkdir()
    service.supervisor.start(
        secure_part(port, tmp_path / "redis", authority.server_file("127.0.0.1"), root, ACL)
    )
    url = f"rediss://scanherald:p%25w0@127.0.0.1:{port}/0?ssl_ca_certs={root}"
    service.environment["REDIS_URL"] = url
    wait_for_redis(url)
    for part in service_parts(service.environment, 2, tmp_path / "logs"):
        service.supervisor.start(part)
    service.subscribe(mail=True)
    admin = redis.Redis.from_url(url)
    admin.config_resetstat()
    keys = set()
    with redis.Redis.from_url(url).monitor() as m:
        import threading

        def listen():
            with contextlib.suppress(Exception):
                for c in m.listen():
                    keys.add(" ".join(c["command"].split()[:4])[:120])

        threading.Thread(target=listen, daemon=True).start()
        service.publish(*({"data": data} for data in scans))
        t0 = time.monotonic()
        service.wait(lambda: service.settled(len(scans)), 150)
        print("SETTLED", time.monotonic() - t0)
        for c in (
            ["health"],
            ["top", "--once"],
            ["tasks", "active"],
            ["tasks", "purge", "reports", "--yes"],
            ["audit"],
            ["replay", "--from-stream", "--force", "--formats", "csv", "--json"],
            ["tasks", "revoke", "x", "--yes"],
        ):
            said = service.scanherald(*c)
            print(c, said.returncode, said.stdout[-2000:], said.stderr[-2000:])
        from tests.integration.test_road import PLATFORM
        import subprocess, sys, os, orjson

        said = subprocess.run(
            [
                sys.executable,
                "-c",
                PLATFORM,
                orjson.loads(scans[0])["scan_id"],
                f"{service.sink.url}/direct",
            ],
            env={**os.environ, **service.environment},
            capture_output=True,
            text=True,
            timeout=100,
        )
        print(said.stdout[-500:], said.stderr[-2000:])
        os.kill(service.supervisor.pid("worker"), 9)
        time.sleep(8)
        service.wait(lambda: service.supervisor.pid("worker") is not None)
        service.publish({"data": scans[0]})
        time.sleep(10)
        service.supervisor.tend()
    for k, v in sorted(admin.info("commandstats").items()):
        print(k, v["calls"], v["rejected_calls"])
    Path("/tmp/h7-keys.txt").write_text("\n".join(sorted(keys)))
    print(admin.keys("*"))
    print(service.last_words())
    raise AssertionError
