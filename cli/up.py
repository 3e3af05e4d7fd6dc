"""``scanherald up``: everything on one machine, supervised, with data that stays."""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from cli.embedded import free_port, service_parts, valkey_part, wait_for_redis
from cli.supervisor import Supervisor
from schemas.errors import InvalidSettings
from schemas.settings import Settings


def run_up(settings: Settings, port: int, concurrency: int) -> int:
    """Run until SIGTERM or Ctrl-C.  Returns the exit status."""
    from tasks.logs import configure_logs
    from tasks.wiring import wire

    configure_logs(settings)
    _ = wire(settings).run_defaults  # the parts would only say it again and again
    data_dir = settings.data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _only_one(data_dir):
        chosen = free_port(port)
        url = f"redis://127.0.0.1:{chosen}/0"
        supervisor = Supervisor()
        try:
            supervisor.start(valkey_part(chosen, data_dir / "valkey", data_dir / "valkey.log"))
            wait_for_redis(url)
            environment = {
                "REDIS_URL": url,
                "SCANHERALD_DATA_DIR": str(data_dir),
                "SCANHERALD_CONSUMER_NAME": settings.consumer_name or "up",
            }
            for part in service_parts(environment, concurrency, None):
                supervisor.start(part)
            _welcome(url, data_dir, settings.streams[0], port)
            while not stop.wait(0.2):
                supervisor.tend()
        finally:
            supervisor.stop()
    return 0


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Two servers on one folder would ruin each other's data."""
    with (data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidSettings(
                f"another `scanherald up` runs on {data_dir}; stop it or choose --data-dir"
            ) from error
        yield


def _welcome(url: str, data_dir: Path, stream: str, wanted: int) -> None:
    port = url.rsplit(":", 1)[1].split("/", 1)[0]
    console = Console(stderr=True, highlight=False)
    if wanted and int(port) != wanted:
        console.print(f"Port {wanted} is taken; the embedded server is on {port}.")
    console.print(
        f"scanherald is up. Data: {data_dir}\n"
        f"Publish: redis-cli -p {port} XADD {stream} '*' data \"$(cat scan.json)\"\n"
        f"     or: REDIS_URL={url} scanherald publish scan.json\n"
        f"Health: REDIS_URL={url} SCANHERALD_DATA_DIR={data_dir} scanherald health\n"
        "Stop with Ctrl-C.",
        soft_wrap=True,
    )
