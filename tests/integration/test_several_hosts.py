"""Six hosts: stores, two listeners, three workers; two are cut off in mid-work, and healed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from cli.embedded import service_parts, valkey_part
from cli.supervisor import Part, Supervisor
from store.ledger import Ledger
from tests.conftest import Service
from tests.faults.conftest import QUICK, small_scans
from tests.hosts import Host, make_hosts, why_not
from tests.postgresql import run_cluster
from tests.s3_server import serve_s3

LISTENERS, WORKERS = ("listener-1", "listener-2"), ("worker-1", "worker-2", "worker-3")
CUT_OFF = ("listener-1", "worker-2")
LEASE_S = float(QUICK["SCANHERALD_DELIVERY_LEASE_S"])
VALKEY, S3, SINK = 6379, 9000, 8080

READ_ALL = """
import hashlib
from schemas.settings import load_settings
from store.runs import list_reports
from tasks.wiring import wire

parts = wire(load_settings())
with parts.ledger.read() as connection:
    rows = list_reports(connection, limit=1000)
for row in rows:
    key = row["uri"].removeprefix(parts.artifacts.uri(""))
    assert hashlib.sha256(parts.artifacts.get(key)).hexdigest() == row["sha256"]
parts.close()
print(len(rows))
"""
"""Every artifact, read and compared with the ledger's word."""

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]  # needs PostgreSQL and iproute2


class Installation(Service):
    """The service with a part per host.  They share addresses and no folder.

    The test itself is on none of the hosts: it speaks to Valkey and PostgreSQL by
    their sockets, and runs commands on the host of the stores.
    """

    def __init__(self, folder: Path, hosts: dict[str, Host], settings: dict[str, str]) -> None:
        self.folder = folder
        self.hosts = hosts
        self.environment = settings
        self.supervisor = Supervisor(longest_pause_s=0.5)
        self.tend_too = []
        self.received = folder / "received"
        self.received.touch()
        (folder / "logs").mkdir()

    def start_on(self, host: str, part: Part) -> None:
        """Start a part on a host, with that host's folder for its data."""
        own = {
            "SCANHERALD_DATA_DIR": str(self.folder / host),
            "SCANHERALD_CONSUMER_NAME": part.name,
        }
        self.supervisor.start(
            replace(
                part,
                command=[*self.hosts[host].enter, *part.command],
                environment={**part.environment, **own},
                log_file=self.folder / "logs" / f"{part.name}.log",
            )
        )

    def start_part_on(self, host: str, name: str) -> None:
        """A part of the service, called like its host."""
        parts = {part.name: part for part in service_parts(self.environment, 1, None)}
        self.start_on(host, replace(parts[name], name=host if name != "beat" else name))

    def kill(self) -> None:
        """End all parts at once: an orderly stop is not the point, and takes half a minute."""
        for name in ("beat", *LISTENERS, *WORKERS):
            pid = self.supervisor.pid(name)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def start_stores(self) -> None:
        """Valkey and the receiver of webhooks."""
        address = self.hosts["stores"].address
        valkey = valkey_part(VALKEY, self.folder / "valkey", None)
        options = ["--bind", address, "--protected-mode", "no", "--unixsocket", self.socket]
        self.start_on("stores", replace(valkey, command=[*valkey.command, *options]))
        receiver = Path(__file__).parents[1] / "sink_on_a_host.py"
        command = [sys.executable, str(receiver), address, str(SINK), str(self.received)]
        self.start_on("stores", Part("sink", command, dict(os.environ)))
        with contextlib.closing(self.redis()) as client:
            self.wait(lambda: _answers(client))

    @property
    def socket(self) -> str:
        return str(self.folder / "valkey.sock")

    def redis(self) -> Any:
        """A client by the server's socket."""
        return redis.Redis(unix_socket_path=self.socket)

    def run_on(self, host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python on a host."""
        return subprocess.run(
            [*self.hosts[host].enter, sys.executable, *arguments],
            env={**os.environ, **self.environment, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def scanherald(self, *arguments: str, **_: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the host of the stores."""
        return self.run_on("stores", "-m", "cli.main", *arguments)

    def worked(self, name: str, event: str, since: str) -> bool:
        """Whether a part has said so since then."""
        lines = self.log_lines(name)
        return any(line["event"] == event and line["timestamp"] > since for line in lines)

    def sends(self) -> Counter[str]:
        """How often each message arrived."""
        return Counter(self.received.read_text().split())


def _answers(client: Any) -> bool:
    with contextlib.suppress(redis.RedisError, OSError):
        return bool(client.ping())
    return False


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """Six hosts; the stores run, nothing else does."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as running:
        hosts = running.enter_context(make_hosts(["stores", *LISTENERS, *WORKERS]))
        stores = hosts["stores"]
        cluster = running.enter_context(run_cluster(host=stores.address, inside=stores.enter))
        bucket = running.enter_context(
            serve_s3(tmp_path / "s3" / "buckets", stores.address, S3, inside=stores.enter)
        )
        cluster.administer("CREATE DATABASE service")
        settings = {
            **QUICK,
            **bucket.environment(),
            "REDIS_URL": f"redis://{stores.address}:{VALKEY}/0",
            "DATABASE_URL": cluster.url("service", stores.address),
            "SCANHERALD_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "SCANHERALD_HTTP_ALLOW": f"{stores.address}:{SINK}",
            "SCANHERALD_DATA_DIR": str(tmp_path / "stores"),
            "SCANHERALD_LOG_FORMAT": "json",
            "SCANHERALD_SWEEP_INTERVAL_S": "1",
            "SCANHERALD_BATCH_ENTRIES": "4",
            "SCANHERALD_FORMATS": "html,json",
            "SCANHERALD_DESTINATION_PER_S": "0",
            "SCANHERALD_SUBSCRIBER_PER_MIN": "0",
        }
        made = Installation(tmp_path, hosts, settings)
        ledger = Ledger(cluster.url("service"))  # by its socket, where the test is
        ledger.migrate()
        monkeypatch.setattr(made, "rows", lambda read, *a, **o: _look(ledger, read, *a, **o))
        running.callback(ledger.close)
        running.callback(made.supervisor.stop)
        running.callback(made.kill)
        made.start_stores()
        yield made


def _look(ledger: Ledger, read: Any, *arguments: Any, **options: Any) -> list[Any]:
    with ledger.read() as connection:
        rows: list[Any] = read(connection, *arguments, **options)
        return rows


def test_hosts_that_are_cut_off_for_longer_than_their_leases_lose_nothing(
    installation: Installation,
) -> None:
    service, address = installation, installation.hosts["stores"].address
    hook = f"http://{address}:{SINK}/hook"
    added = service.scanherald("subscribers", "add", "one", "--webhook", hook)
    assert added.returncode == 0, added.stderr
    for host in WORKERS:
        service.start_part_on(host, "worker")
    service.start_part_on("stores", "beat")
    for host in LISTENERS:
        service.start_part_on(host, "listener")
    each, batches = 8, 5
    service.publish(*small_scans(each))
    service.wait(lambda: service.settled(each))

    published = each
    service.publish(*small_scans(each, first=published + 1))
    published += each
    service.wait(lambda: len(service.runs()) > each)  # in the middle of the work
    for host in CUT_OFF:
        service.hosts[host].unplug()
    began = time.monotonic()
    for _ in range(batches - 2):
        service.publish(*small_scans(each, first=published + 1))
        published += each
    service.wait(lambda: time.monotonic() - began > 2 * LEASE_S)
    meanwhile = sum(1 for run in service.runs() if run["state"] == "done") - each
    for host in CUT_OFF:
        service.hosts[host].plug_in()
    healed, healed_at = time.monotonic(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    service.wait(lambda: service.settled(published), 100)
    spent_s = time.monotonic() - healed

    def are_back() -> bool:
        nonlocal published
        if service.settled(published):
            service.publish(*small_scans(2, first=published + 1))
            published += 2
        return service.worked("listener-1", "batch_recorded", healed_at) and service.worked(
            "worker-2", "artifact_stored", healed_at
        )

    service.wait(are_back)
    service.wait(lambda: service.settled(published))

    assert meanwhile > 0, "the others went on"
    assert [run["state"] for run in service.runs()] == ["done"] * published
    assert Counter(row["status"] for row in service.reports()) == {"ready": 2 * published}
    sends = service.sends()
    assert set(sends) == {row["delivery_id"] for row in service.deliveries()}
    audit = service.scanherald("audit", "--json")
    assert audit.returncode == 0, audit.stdout[-3000:] + audit.stderr[-3000:]
    read = service.run_on("worker-2", "-c", READ_ALL)
    assert read.returncode == 0, read.stderr[-3000:]
    assert int(read.stdout) == 2 * published
    print(
        f"hosts 6, cut off {len(CUT_OFF)} for {healed - began:.0f} s, events {published}, lost 0, "
        f"done meanwhile {meanwhile}, effects {len(sends)}, "
        f"duplicates {sum(sends.values()) - len(sends)}, settled {spent_s:.1f} s after healing"
    )
