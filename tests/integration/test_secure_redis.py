"""The road with a Redis that speaks TLS alone, and lets each user do what it must and no more."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from cli.embedded import free_port, service_parts, wait_for_redis
from schemas.errors import BrokerUnavailable, StreamUnavailable
from schemas.settings import load_settings
from tasks.engines import engine_settings
from tasks.lag import read_lag
from tasks.publishing import broker_faults
from tasks.wiring import utc_now
from tests.authority import Authority
from tests.conftest import CALLS_A_TASK
from tests.redis_servers import documented_acl, secure_part

pytestmark = pytest.mark.full

QUICK = {
    "SCANHERALD_RUN_DEADLINE_S": "8",
    "SCANHERALD_TASK_SOFT_TIME_LIMIT_S": "4",
    "SCANHERALD_TASK_TIME_LIMIT_S": "5",
    "SCANHERALD_RETRY_MAX_S": "1",
    "SCANHERALD_DELIVERY_LEASE_S": "5",
    "SCANHERALD_VISIBILITY_TIMEOUT_S": "6",
    "SCANHERALD_CLAIM_IDLE_MS": "1000",
    "SCANHERALD_HEALTH_TIMEOUT_S": "20",
}
URLS = ("REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")
SECRET, PLATFORM = "s:crêt/1", "p"
ADMIN = "user admin on >a ~* &* +@all\n"


class Secured:
    """The server, and its URL for each user."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        authority = Authority(folder)
        self.root = authority.root_file()
        acl = documented_acl([PLATFORM, SECRET]) + ADMIN
        certificate = authority.server_file("127.0.0.1")
        self.part = secure_part(self.port, folder / "redis", certificate, self.root, acl)

    def url(self, user: str, password: str, root: Path | None = None) -> str:
        """As an operator would write it."""
        server = f"rediss://{user}:{password}@127.0.0.1:{self.port}/0"
        return f"{server}?ssl_ca_certs={root or self.root}"


@pytest.fixture
def secured(service: Any, tmp_path: Path) -> Iterator[Secured]:
    """The server runs, and the service has its URL; nothing else runs yet."""
    (tmp_path / "logs").mkdir()
    found = Secured(tmp_path)
    service.supervisor.start(found.part)
    wait_for_redis(found.url("admin", "a"))
    url = found.url("scanherald", "s%3Acr%C3%AAt%2F1")
    service.environment |= dict.fromkeys(URLS, url)
    yield found
    service.kill()


def refusals(url: str) -> list[str]:
    """What stream and broker say to a user that may not come in, or not do its work."""
    with pytest.raises(StreamUnavailable) as stream:
        read_lag(url, ["scans:events"], "scanherald", utc_now())
    app = Celery(set_as_current=False)
    app.conf.update(engine_settings(load_settings(celery_broker_url=url)))
    with (
        pytest.raises(BrokerUnavailable) as broker,
        broker_faults(),
        app.connection_for_write() as connection,
    ):
        connection.channel().queue_declare("reports", passive=True)
    return [str(stream.value), str(broker.value)]


@pytest.mark.timeout(400)
def test_with_tls_and_the_documented_users_everything_works_and_nothing_more_is_allowed(
    service: Any, secured: Secured, tmp_path: Path, scans: list[bytes]
) -> None:
    service.environment |= QUICK | {
        "SCANHERALD_HOUSEKEEPING_S": "1",
        "SCANHERALD_CONSUMER_IDLE_S": "4",
        "SCANHERALD_STREAM_RETENTION_S": "1",
    }
    admin = redis.Redis.from_url(secured.url("admin", "a"), decode_responses=True)
    _leave_an_entry_with_a_dead_consumer(admin, scans[3])
    for part in service_parts(service.environment, 2, tmp_path / "logs"):
        service.supervisor.start(part)
    service.subscribe()
    with redis.Redis.from_url(secured.url("platform", PLATFORM)) as platform:
        for data in scans[:3]:
            platform.xadd("scans:events", {"data": data})
        for forbidden in (("XADD", "other", "*", "a", "b"), ("XRANGE", "scans:events", "-", "+")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                platform.execute_command(*forbidden)
    service.wait(lambda: len(service.reports()) > 0)
    os.killpg(service.supervisor.pid("worker"), signal.SIGKILL)  # what it had is restored
    service.wait(lambda: service.settled(4), 100)
    assert len(service.reports()) == 16
    assert service.ask(CALLS_A_TASK, json.loads(scans[0])["scan_id"]) == "1"
    for line in ("health redis broker", "tasks purge reports --yes", "audit"):
        said = service.scanherald(*line.split())
        assert said.returncode == 0, said.stdout + said.stderr
    service.wait(lambda: "dead" not in _consumers(admin))
    with admin:
        refused = [entry for entry in admin.acl_log() if entry["username"] == "scanherald"]
        assert refused == []
        for found in refusals(secured.url("scanherald", "wrong")):
            assert "user or password in the URL are not what the server has" in found
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other").root_file()
        for found in refusals(secured.url("scanherald", "s%3Acr%C3%AAt%2F1", stranger)):
            assert "CERTIFICATE_VERIFY_FAILED" in found
            assert "give the authority that signed the server's certificate" in found
        admin.acl_setuser("scanherald", enabled=True, commands=["-exists"])
        for found in refusals(service.environment["REDIS_URL"]):
            assert "'exists'" in found
            assert "docs/brokers.md has the lines that are needed" in found


def _leave_an_entry_with_a_dead_consumer(admin: Any, data: bytes) -> None:
    admin.xgroup_create("scans:events", "scanherald", id="0", mkstream=True)
    admin.xadd("scans:events", {"data": data})
    admin.xreadgroup("scanherald", "dead", {"scans:events": ">"})


def _consumers(admin: Any) -> set[str]:
    return {row["name"] for row in admin.xinfo_consumers("scans:events", "scanherald")}
