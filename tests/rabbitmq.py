"""Debian's RabbitMQ in a folder of the tests' own: no service, no plugins, loopback only."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from kombu import Connection

from cli.embedded import free_port
from cli.supervisor import Part, Supervisor
from tests.authority import Authority

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The program itself: Debian's /usr/sbin/rabbitmq-server speaks to the system's service."""

USER = "rabbitmq"


class RabbitMQ:
    """One node with its own name, port, data and name server (epmd)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()
        self._supervisor = Supervisor(longest_pause_s=0.5)
        self._epmd_port, self._dist_port = free_port(), free_port()

    @property
    def url(self) -> str:
        """As an operator would write it into CELERY_BROKER_URL."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def tls_url(self, host: str = "127.0.0.1", root: Path | None = None) -> str:
        """The same with TLS, trusting the tests' authority or another one."""
        return f"amqps://guest:guest@{host}:{self.tls_port}//?ssl_ca_certs={root or self.root}"

    def start(self) -> None:
        """Start the node and wait until it takes connections."""
        for name in ("home", "data"):
            (self.folder / name).mkdir(exist_ok=True)
        # plugins and files of the machine's own configuration stay out
        (self.folder / "enabled_plugins").write_text("[].")
        authority = Authority(self.folder)
        certificate = authority.server_file("127.0.0.1")
        self.root = authority.root_file()
        settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "listeners.ssl.1": f"127.0.0.1:{self.tls_port}",
            "listeners.ssl.2": f"127.0.0.2:{self.tls_port}",  # for which there is no certificate
            "ssl_options.cacertfile": self.root,
            "ssl_options.certfile": certificate,
            "ssl_options.keyfile": certificate,
            "log.file": "false",
            "log.console": "true",
        }
        lines = (f"{name} = {value}\n" for name, value in settings.items())
        (self.folder / "rabbitmq.conf").write_text("".join(lines))
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, USER, USER)
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"tests-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_ALLOW_INPUT": "1",  # the shell becomes the server: signals reach it
        }
        for name, command in (
            ("epmd", ["epmd", "-address", "127.0.0.1", "-port", str(self._epmd_port)]),
            ("rabbitmq", [str(SERVER), "-noinput"]),
        ):
            log_file = self.folder / f"{name}.log"
            self._supervisor.start(Part(name, [*_as_user(), *command], environment, log_file))
        self.wait()

    def pid(self) -> int | None:
        """The node's process; None while it is away."""
        return self._supervisor.pid("rabbitmq")

    def tend(self) -> None:
        """Start the node again if it was killed.  To be called often."""
        self._supervisor.tend()

    def wait(self, timeout_s: float = 60.0) -> None:
        """Tend the node until it takes connections."""
        give_up = time.monotonic() + timeout_s
        while True:
            self.tend()
            try:
                with Connection(self.url, connect_timeout=2) as connection:
                    connection.connect()
                return
            except OSError as error:
                if time.monotonic() > give_up:
                    log = (self.folder / "rabbitmq.log").read_text(errors="replace")
                    raise TimeoutError(f"RabbitMQ does not answer\n{log[-3000:]}") from error
                time.sleep(0.1)

    def forget(self, *queues: str) -> None:
        """Drop queues with all that waits in them, for the next test."""
        with Connection(self.url) as connection, connection.channel() as channel:
            for queue in queues:
                channel.queue_delete(queue)

    def stop(self) -> None:
        """Stop the node and its name server."""
        self._supervisor.stop()


def _as_user() -> list[str]:
    """RabbitMQ runs as nobody's root; a change of user would forget who started it."""
    if os.geteuid() != 0:
        return []
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    return ["setpriv", *user, "--pdeathsig=TERM"]
