"""The command line's front door: every command, and how its errors are told.

Commands import what they need when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli import (
    audit,
    bundle,
    cleanup,
    deadletters,
    deliveries,
    erase,
    flower,
    health,
    metrics,
    records,
    rejudge,
    render,
    replay,
    rules,
    runs,
    subscribers,
    tasks,
    top,
    violations,
    why,
)
from cli.output import cell
from cli.settings import load_settings
from schemas.errors import PermanentError, ScanheraldError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Cookie scan events in; compliance reports and notifications out.",
    epilog="Start here: scanherald demo. Settings: docs/configuration.md.",
)
app.command("reports")(records.reports_command)
app.command(
    "render",
    epilog="Example: scanherald render 3176b0cd-199b-5ec6-b280-ec5c6e92338a --language de "
    "--format pdf --output copies",
)(render.render_command)
app.command(
    "bundle",
    epilog="Example: scanherald bundle 3176b0cd-199b-5ec6-b280-ec5c6e92338a --output evidence.zip",
)(bundle.bundle_command)
app.command("verify", epilog="Example: scanherald verify evidence.zip --key signer.pem")(
    bundle.verify_command
)
app.command("signing-key", epilog="Example: scanherald signing-key > signer.pem")(
    bundle.signing_key_command
)
app.command("audit", epilog="Example: scanherald audit --since 24h --json")(audit.audit_command)
app.command("cleanup", epilog="Example: scanherald cleanup reports --days 90 --dry-run")(
    cleanup.cleanup_command
)
app.command("erase", epilog="Example: scanherald erase --domain shop.example --dry-run")(
    erase.erase_command
)
app.command("rejudge", epilog="Example: scanherald rejudge --pack acme-2026.2 --since 90d")(
    rejudge.rejudge_command
)
app.command("violations", epilog="Example: scanherald violations --open --domain example.org")(
    violations.violations_command
)
app.command("why", epilog="Example: scanherald why anna 3176b0cd-199b-5ec6-b280-ec5c6e92338a")(
    why.why_command
)
app.command("metrics", epilog="Example: scanherald metrics --port 9808")(metrics.metrics_command)
app.command("flower", epilog="Example: scanherald flower --port 5555 --read-only")(
    flower.flower_command
)
app.command("top", epilog="Example: scanherald top --interval 5")(top.top_command)
app.command("replay", epilog="Example: scanherald replay --from 7d --domain '*.de' --dry-run")(
    replay.replay_command
)
app.add_typer(replay.app, name="replays")
app.command("health", epilog="Example: scanherald health worker --live")(health.health_command)
app.command("stats", epilog="Example: scanherald stats --hours 24 --json")(health.stats_command)
app.add_typer(rules.app, name="rules")
app.add_typer(runs.app, name="runs")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(subscribers.app, name="subscribers")
app.add_typer(tasks.app, name="tasks")
app.add_typer(deadletters.app, name="dead-letters")

DataDir = Annotated[
    Path | None, typer.Option(help="Folder of ledger, artifacts, keys and server data.")
]


@app.command(epilog="Example: scanherald demo --output demo-output")
def demo(
    scans: Annotated[Path, typer.Option(help="Folder of scan results to publish.")] = Path(
        "tests/data/scans"
    ),
    output: Annotated[Path, typer.Option(help="Folder for all that comes out.")] = Path(
        "demo-output"
    ),
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the last delivery.")] = 120.0,
) -> None:
    """Run the main job on real scans with everything embedded, and check what came out."""
    from cli.demo import run_demo

    raise typer.Exit(run_demo(scans, output, timeout))


@app.command(epilog="Example: scanherald up --port 6379 --data-dir ./scanherald-data")
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0: a free one.")] = 6379,
    concurrency: Annotated[int, typer.Option(help="Worker processes.")] = 2,
    data_dir: DataDir = None,
) -> None:
    """Run everything on this machine, supervised, with data that survives a restart."""
    from cli.up import run_up

    settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
    raise typer.Exit(run_up(settings, port, concurrency))


@app.command(epilog="Example: REDIS_URL=redis://redis:6379/0 scanherald listen")
def listen() -> None:
    """Read the event stream: record, dispatch, acknowledge.  SIGTERM finishes the batch."""
    from cli.processes import run_listener

    run_listener(load_settings())


@app.command(epilog="Example: scanherald worker --queue reports --queue default --concurrency 4")
def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option(help="Queue to serve; repeat, or separate by commas. All by default."),
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Processes or threads.")] = None,
    autoscale: Annotated[str | None, typer.Option(metavar="MAX,MIN", help="Pool size.")] = None,
    loglevel: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
    pool: Annotated[str, typer.Option(help="prefork, threads or solo.")] = "prefork",
    max_tasks_per_child: Annotated[
        int | None, typer.Option(help="Replace a pool process after so many tasks.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Worker name, such as reports@%h.")] = None,
) -> None:
    """Run a Celery worker for our queues."""
    from cli.processes import WorkerOptions, run_worker

    run_worker(
        load_settings(**({"log_level": loglevel} if loglevel else {})),
        WorkerOptions(tuple(queue or ()), concurrency, autoscale, pool, max_tasks_per_child, name),
    )


@app.command(epilog="Example: scanherald beat")
def beat() -> None:
    """Run Celery beat: the sweep, statistics, health and cleanup, on time."""
    from cli.processes import run_beat

    run_beat(load_settings())


@app.command(epilog="Example: scanherald publish scan.json other-scans/*.json")
def publish(
    files: Annotated[list[Path], typer.Argument(help="Files with one JSON object each.")],
    kind: Annotated[str, typer.Option("--type", help="Event type.")] = "scan.completed",
    userid: Annotated[str | None, typer.Option(help="The user who owns the scans.")] = None,
    stream: Annotated[str | None, typer.Option(help="Stream; the first of the settings.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print entry ids as JSON.")] = False,
) -> None:
    """Publish events from files by plain XADD, as a scanner would."""
    from cli.records import print_published
    from listener.publish import publish as xadd

    settings = load_settings()
    wanted = {"type": kind, **({"userid": userid} if userid else {})}
    events = [{"data": _read(path), **wanted} for path in files]
    ids = xadd(settings.redis_url, stream or settings.streams[0], events)
    print_published(dict(zip(map(str, files), ids, strict=True)), as_json=as_json)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PermanentError(f"cannot read {path}: {error.strerror}") from error


def main() -> None:
    """The console script.  Exit status: 1 for an error that needs you, 75 to try again later."""
    try:
        app()
    except ScanheraldError as error:
        console = Console(stderr=True, highlight=False, emoji=False)
        console.print(f"[red]error:[/red] {cell(str(error))}", soft_wrap=True)
        sys.exit(1 if isinstance(error, PermanentError) else 75)


if __name__ == "__main__":
    main()
