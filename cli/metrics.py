"""``scanherald metrics``: the exporter as a process, or one look on standard output."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated

import typer
from rich.console import Console

from cli.settings import load_settings


def metrics_command(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to serve on; 0: a free one.")
    ] = 9808,
    host: Annotated[
        str, typer.Option(help="Address to serve on; 0.0.0.0 in a container.")
    ] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print one look and end.")] = False,
) -> None:
    """Publish metrics for Prometheus: streams, queues, workers, runs, deliveries, latencies.

    Everything is computed when asked.  With --once a part that is down is a
    scanherald_up of 0, and the exit status is 0 all the same.
    """
    from listener.exporter import exposition, registry_for
    from listener.serving import served
    from tasks import wiring
    from tasks.logs import configure_logs
    from tasks.sd_notify import notify

    settings = load_settings()
    configure_logs(settings)
    wiring.use(settings)
    parts = wiring.current()
    try:
        if once:
            sys.stdout.write(exposition(parts))
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with served(registry_for(parts), host, port) as bound:
            notify(settings.notify_socket, "READY=1")
            name = f"[{host}]" if ":" in host else host
            Console(stderr=True, highlight=False).print(
                f"Metrics on http://{name}:{bound}/metrics. Stop with Ctrl-C.", soft_wrap=True
            )
            stop.wait()
    finally:
        parts.close()
