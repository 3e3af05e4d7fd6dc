"""``scanherald flower``: Celery's own web page, where the extra is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from cli.settings import load_settings
from schemas.errors import InvalidSettings


def flower_command(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 5555,
    host: Annotated[
        str, typer.Option(help="Address to serve on; elsewhere than here set a password.")
    ] = "127.0.0.1",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show, without buttons that change anything.")
    ] = False,
) -> None:
    """Show workers, queues and tasks in a browser.  Flower's own FLOWER_ variables count too.

    Flower has workers send an event for each step of each task, from now until
    they restart; docs/metrics.md says what that costs.  Who may open the page
    sees tasks' arguments and, without --read-only, can stop workers: off this
    machine, set FLOWER_BASIC_AUTH=user:password.
    """
    if find_spec("flower") is None:
        raise InvalidSettings("Flower is not installed here: pip install 'scanherald[flower]'")
    from tasks import app, wiring
    from tasks.logs import configure_logs

    settings = load_settings()
    configure_logs(settings)
    wiring.use(settings)
    options = [f"--port={port}", f"--address={host}", *(["--read-only=true"] if read_only else [])]
    app.start(["flower", *options])
