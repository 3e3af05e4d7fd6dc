"""The whole service as processes, for integration and acceptance tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.embedded import free_port, service_parts, valkey_part, wait_for_redis
from cli.sinks import HttpSink, MailSink
from cli.supervisor import Supervisor
from schemas.settings import Settings, load_settings
from store.deliveries import list_deliveries
from store.events import list_dead_letters
from store.ledger import Ledger, open_ledger
from store.runs import list_reports, list_runs
from tasks.app import QUEUES
from tests.postgresql import Cluster, run_cluster
from tests.rabbitmq import SERVER, RabbitMQ
from tests.redis_servers import Sentinels

SCANS = Path(__file__).parent / "data" / "scans"


@pytest.fixture(scope="session")
def scans() -> list[bytes]:
    """The eleven real scans."""
    return [path.read_bytes() for path in sorted(SCANS.glob("*.json"))]


CALLS_A_TASK = """
import sys
from tasks import generate_report_async
from tasks.monitoring import get_celery_monitor
made = generate_report_async.delay(sys.argv[1], "pdf").get(timeout=60)
assert made["status"] == "completed", made
print(get_celery_monitor().get_worker_stats()["total_workers"])
"""
"""As the platform does: a public task's result, waited for; and how many workers there are."""


class Service:
    """Valkey, worker, beat and listener on free ports in one folder, with both sinks."""

    def __init__(self, folder: Path, mails: MailSink, sink: HttpSink) -> None:
        self.folder = folder
        self.mails = mails
        self.sink = sink
        self.port = free_port()
        self.environment = {
            "REDIS_URL": f"redis://127.0.0.1:{self.port}/0",
            "SCANHERALD_DATA_DIR": str(folder / "data"),
            "SCANHERALD_CONSUMER_NAME": "listener-1",
            "SCANHERALD_LOG_FORMAT": "json",
            "SCANHERALD_SMTP_HOST": "127.0.0.1",
            "SCANHERALD_SMTP_PORT": str(mails.port),
            "SCANHERALD_SMTP_SECURITY": "none",
            "SCANHERALD_HTTP_ALLOW": f"127.0.0.1:{sink.port}",
            "SCANHERALD_SWEEP_INTERVAL_S": "1",
            # one sink is everybody's: no test but one of the pace should wait for it
            "SCANHERALD_DESTINATION_PER_S": "0",
            "SCANHERALD_SLACK_PER_S": "0",
            "SCANHERALD_SUBSCRIBER_PER_MIN": "0",
        }
        self.valkey_options: list[str] = []
        self.supervisor = Supervisor()
        self.tend_too: list[Callable[[], None]] = []
        """Servers that a test starts beside these parts."""

    @property
    def settings(self) -> Settings:
        """The settings that the processes read from their environment."""
        with _environment(self.environment):
            return load_settings()

    def start(self, *names: str) -> None:
        """Start these parts, or all; Valkey first."""
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        valkey = valkey_part(self.port, self.folder / "valkey", logs / "valkey.log")
        self.supervisor.start(replace(valkey, command=[*valkey.command, *self.valkey_options]))
        wait_for_redis(self.environment["REDIS_URL"])
        for part in service_parts(self.environment, 2, logs):
            if not names or part.name in names:
                self.supervisor.start(part)

    def start_part(self, name: str) -> None:
        """Start one more part."""
        parts = service_parts(self.environment, 2, self.folder / "logs")
        self.supervisor.start(next(part for part in parts if part.name == name))

    def kill(self) -> None:
        """kill -9, where an orderly end is not the point, or would wait for what is gone."""
        for part in ("listener", "beat", "worker"):
            pid = self.supervisor.pid(part)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def start_another(self, part: str, name: str, **own: str) -> None:
        """One more process of a part, under a name of its own and with settings of its own."""
        logs = self.folder / "logs"
        parts = {one.name: one for one in service_parts(self.environment, 2, logs)}
        environment = {**parts[part].environment, "SCANHERALD_CONSUMER_NAME": name, **own}
        log_file = logs / f"{name}.log"
        self.supervisor.start(
            replace(parts[part], name=name, environment=environment, log_file=log_file)
        )

    def redis(self) -> Any:
        """A client of the server."""
        return redis.Redis.from_url(self.environment["REDIS_URL"])

    def publish(self, *events: dict[str, Any], stream: str = "scans:events") -> list[bytes]:
        """Plain XADD."""
        with contextlib.closing(self.redis()) as client:
            return [client.xadd(stream, fields) for fields in events]

    def scanherald(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as an operator would."""
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env={**os.environ, **self.environment, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def ask(self, program: str, *arguments: str) -> str:
        """What a Python program prints that has our environment."""
        said = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert said.returncode == 0, said.stderr[-3000:] + self.last_words()
        return said.stdout.strip()

    def subscribe(self, *, mail: bool = False) -> None:
        """One subscriber with a webhook, and an e-mail address if asked."""
        address = ["--email", "officer@example.org"] if mail else []
        said = self.scanherald(
            "subscribers", "add", "one", "--webhook", f"{self.sink.url}/hook", *address
        )
        assert said.returncode == 0, said.stderr

    def rows(self, read: Callable[..., list[Any]], *arguments: Any, **options: Any) -> list[Any]:
        """What the ledger says."""
        ledger = Ledger(self.settings.ledger_url)
        try:
            with ledger.read() as connection:
                return read(connection, *arguments, **options)
        finally:
            ledger.close()

    def runs(self) -> list[Any]:
        """All runs."""
        return self.rows(list_runs, limit=10_000)

    def reports(self) -> list[Any]:
        """All reports."""
        return self.rows(list_reports, limit=100_000)

    def deliveries(self) -> list[Any]:
        """All deliveries."""
        return self.rows(list_deliveries, limit=100_000)

    def dead_letters(self) -> list[Any]:
        """All dead letters."""
        return self.rows(list_dead_letters, 10_000)

    def settled(self, count: int) -> bool:
        """Whether so many runs are done or dead, and every delivery with them."""
        ended = [run for run in self.runs() if run["state"] in ("done", "dead")]
        return len(ended) >= count and all(row["settled_at"] for row in self.deliveries())

    def wait(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Tend the processes until ``condition`` holds; fail with the logs' end otherwise."""
        give_up = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > give_up:
                pytest.fail(f"not reached within {timeout_s:.0f} s\n{self.last_words()}")
            self.supervisor.tend()
            for tend in self.tend_too:
                tend()
            time.sleep(0.1)

    def log_lines(self, part: str) -> list[dict[str, Any]]:
        """A part's log, line by line as JSON; other lines are left out."""
        path = self.folder / "logs" / f"{part}.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def last_words(self) -> str:
        """The end of every log."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted((self.folder / "logs").glob("*.log"))
        )


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Debian's PostgreSQL, started for this test run, with one migrated database."""
    with run_cluster() as running:
        running.administer("CREATE DATABASE migrated")
        with open_ledger(running.url("migrated")):
            pass
        yield running


@pytest.fixture
def on_postgresql(cluster: Cluster) -> Iterator[str]:
    """The URL of a migrated, empty database."""
    cluster.administer("CREATE DATABASE service TEMPLATE migrated")
    try:
        yield cluster.url("service")
    finally:
        cluster.administer("DROP DATABASE service WITH (FORCE)")


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Nothing runs yet; whatever a test starts is stopped.

    The ledger is a SQLite file, or by ``LEDGER=postgresql`` in the environment a
    database: so every test of the service can be asked of either.
    """
    with MailSink() as mails, HttpSink() as sink:
        running = Service(tmp_path, mails, sink)
        if os.environ.get("LEDGER", "sqlite") == "postgresql":
            running.environment["DATABASE_URL"] = request.getfixturevalue("on_postgresql")
        with open_ledger(running.settings.ledger_url):
            pass  # migrated
        try:
            yield running
        finally:
            running.supervisor.stop()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """Debian's RabbitMQ, started once for all tests that ask for it."""
    if not SERVER.exists():
        pytest.fail(f"no {SERVER}: install Debian's rabbitmq-server")
    folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))  # open to the server's user
    server = RabbitMQ(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitMQ, service: Service) -> RabbitMQ:
    """The server with empty queues, as the broker of the service."""
    rabbitmq_server.wait()
    rabbitmq_server.forget(*QUEUES)
    service.environment["CELERY_BROKER_URL"] = rabbitmq_server.url
    service.tend_too.append(rabbitmq_server.tend)
    return rabbitmq_server


@pytest.fixture
def sentinels(service: Service, tmp_path: Path) -> Iterator[Sentinels]:
    """Two servers and three sentinels, as stream, broker and result backend of the service."""
    (tmp_path / "logs").mkdir()
    found = Sentinels(tmp_path)
    try:
        found.start()
        for name in ("REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
            service.environment[name] = found.url
        yield found
    finally:
        service.kill()
        found.stop()
