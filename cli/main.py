"""The command line's front door: every command, and how its errors are told.

Commands import what they need when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.lazy import Lazy, lazily
from cli.output import cell
from cli.settings import load_settings
from schemas.errors import PermanentError, ScanheraldError

COMMANDS = (
    Lazy(
        "reports",
        "cli.records:reports_command",
        "List reports with their size, digest and place.",
    ),
    Lazy(
        "render",
        "cli.render:render_command",
        "Render a recorded scan again, here and now, beside the reports that are there.",
        "Example: scanherald render 3176b0cd-199b-5ec6-b280-ec5c6e92338a --language de "
        "--format pdf --output copies",
    ),
    Lazy(
        "bundle",
        "cli.bundle:bundle_command",
        "Put a scan and its reports into a signed zip that anyone can check, offline, for years.",
        "Example: scanherald bundle 3176b0cd-199b-5ec6-b280-ec5c6e92338a --output evidence.zip",
    ),
    Lazy(
        "verify",
        "cli.bundle:verify_command",
        "Check a bundle to the last bit, offline.",
        "Example: scanherald verify evidence.zip --key signer.pem",
    ),
    Lazy(
        "signing-key",
        "cli.bundle:signing_key_command",
        "Print the public key that checks our bundles, for auditors to have beforehand.",
        "Example: scanherald signing-key > signer.pem",
    ),
    Lazy(
        "audit",
        "cli.audit:audit_command",
        "Account for every entry, event, run, report and delivery; exit status 1 names the gaps.",
        "Example: scanherald audit --since 24h --json",
    ),
    Lazy(
        "backup",
        "cli.backup:backup_command",
        "Copy the SQLite ledger and the folder of artifacts, while the service works.",
        "Example: scanherald backup /srv/backups/2026-03-04",
    ),
    Lazy(
        "restore",
        "cli.backup:restore_command",
        "Put a backup in the place of a ledger that is gone.",
        "Example: scanherald restore /srv/backups/2026-03-04",
    ),
    Lazy(
        "cleanup",
        "cli.cleanup:cleanup_command",
        "Delete what is older than its retention, and search for orphans; nothing in use.",
        "Example: scanherald cleanup reports --days 90 --dry-run",
    ),
    Lazy(
        "erase",
        "cli.erase:erase_command",
        "Erase all that is kept of a subscriber or of a domain, and print a receipt.",
        "Example: scanherald erase --domain shop.example --dry-run",
    ),
    Lazy(
        "rejudge",
        "cli.rejudge:rejudge_command",
        "Judge recorded scans by another rule pack; show what changes by law, not by site.",
        "Example: scanherald rejudge --pack acme-2026.2 --since 90d",
    ),
    Lazy(
        "violations",
        "cli.violations:violations_command",
        "List violations: one for each rule that found something serious on a domain.",
        "Example: scanherald violations --open --domain example.org",
    ),
    Lazy(
        "why",
        "cli.why:why_command",
        "Say why a subscriber was told of something, or was not: each step, from the ledger.",
        "Example: scanherald why anna 3176b0cd-199b-5ec6-b280-ec5c6e92338a",
    ),
    Lazy(
        "metrics",
        "cli.metrics:metrics_command",
        "Publish metrics for Prometheus: streams, queues, workers, runs, deliveries, latencies.",
        "Example: scanherald metrics --port 9808",
    ),
    Lazy(
        "flower",
        "cli.flower:flower_command",
        "Show workers, queues and tasks in a browser.",
        "Example: scanherald flower --port 5555 --read-only",
    ),
    Lazy(
        "top",
        "cli.top:top_command",
        "Watch streams, queues, workers, runs, deliveries and the last errors.",
        "Example: scanherald top --interval 5",
    ),
    Lazy(
        "migrate",
        "cli.migrate:migrate_command",
        "Bring the ledger's schema to this release; harmless when it is there already.",
        "Example: scanherald migrate",
    ),
    Lazy(
        "replay",
        "cli.replay:replay_command",
        "Run old events again: from the ledger, the streams, files, or dead letters after a fix.",
        "Example: scanherald replay --from 7d --domain '*.de' --dry-run",
    ),
    Lazy(
        "health",
        "cli.health:health_command",
        "Say how each part is, how long that took to find out, and what to do.",
        "Example: scanherald health worker --live",
    ),
    Lazy(
        "stats",
        "cli.health:stats_command",
        "Count what the last hours brought: events, runs, reports, deliveries, "
        "and how long they took.",
        "Example: scanherald stats --hours 24 --json",
    ),
    Lazy(
        "replays",
        "cli.replay:app",
        "What was replayed, how far it is, and what came of it.",
    ),
    Lazy(
        "rules",
        "cli.rules:app",
        "Rule packs: what findings rest on.",
    ),
    Lazy(
        "runs",
        "cli.runs:app",
        "The work that each event asked for, and how it went.",
    ),
    Lazy(
        "deliveries",
        "cli.deliveries:app",
        "Deliveries: one message, one subscriber, one channel; and how they went.",
    ),
    Lazy(
        "subscribers",
        "cli.subscribers:app",
        "Who is told what, where and when.",
    ),
    Lazy(
        "tasks",
        "cli.tasks:app",
        "Celery's tasks: what workers and queues hold, and taking it away.",
    ),
    Lazy(
        "config",
        "cli.config:app",
        "What the settings are, and whether they work.",
        "Example: scanherald config check",
    ),
    Lazy(
        "dead-letters",
        "cli.deadletters:app",
        "Entries that never became events, with reasons.",
    ),
)
"""Every command that is not in this file, in the help's order; a test holds the lines to theirs."""

app = typer.Typer(
    cls=lazily(COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Cookie scan events in; compliance reports and notifications out.",
    epilog="Start here: scanherald demo. Settings: docs/configuration.md.",
)

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
