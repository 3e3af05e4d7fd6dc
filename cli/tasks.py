"""``tasks``: what Celery's workers and queues hold, and how to take it from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cli.output import cell, confirm, print_json, print_rows
from cli.records import AsJson, Yes
from cli.settings import load_settings
from schemas.errors import BrokerUnavailable, InvalidSettings

if TYPE_CHECKING:
    from tasks.monitoring import CeleryMonitor
    from tasks.wiring import Wiring

app = typer.Typer(
    no_args_is_help=True,
    help="Celery's tasks: what workers and queues hold, and taking it away.",
    epilog="Example: scanherald tasks active",
)

TaskId = Annotated[str, typer.Argument(metavar="ID", help="A task's id.")]
NOBODY = (
    "no worker answers within 2 s; one that is busy in a solo pool cannot. "
    "See: scanherald health worker"
)


@app.command("active", epilog="Example: scanherald tasks active --json")
def active_command(as_json: AsJson = False) -> None:
    """List the tasks that workers have in hand now."""
    with _monitor() as (monitor, _):
        found = monitor.get_active_tasks()
    if as_json:
        print_json(found)
        return
    _answered(found)
    print_rows(
        [
            {
                "worker": worker,
                "task": task.get("name"),
                "id": task.get("id"),
                "since": _moment(task.get("time_start")),
                "process": task.get("worker_pid"),
            }
            for worker, tasks in found.items()
            for task in tasks
        ],
        ("worker", "task", "id", "since", "process"),
        as_json=False,
        empty=f"{len(found)} workers answer, and have nothing in hand.",
    )


@app.command("registered", epilog="Example: scanherald tasks registered")
def registered_command(as_json: AsJson = False) -> None:
    """List the tasks that there are, by name."""
    with _monitor() as (monitor, _):
        found = monitor.get_registered_tasks()
    if as_json:
        print_json(found)
    else:
        Console(highlight=False).print("\n".join(map(cell, found)))


@app.command("scheduled", epilog="Example: scanherald tasks scheduled")
def scheduled_command(as_json: AsJson = False) -> None:
    """List tasks with a countdown that workers hold, and beat's schedule."""
    with _monitor() as (monitor, _):
        found = monitor.get_scheduled_tasks()
    if as_json:
        print_json(found)
        return
    print_rows(
        [{"name": name, **entry} for name, entry in sorted(found["beat"].items())],
        ("name", "task", "schedule"),
        as_json=False,
        empty="Beat has no schedule.",
    )
    Console().print()
    _answered(found["workers"])
    print_rows(
        [
            {
                "worker": worker,
                "task": held.get("request", {}).get("name"),
                "id": held.get("request", {}).get("id"),
                "due": held.get("eta"),
            }
            for worker, tasks in found["workers"].items()
            for held in tasks
        ],
        ("worker", "task", "id", "due"),
        as_json=False,
        empty="Workers hold no task with a countdown.",
    )


@app.command(
    "status",
    epilog="Example: scanherald tasks status 3176b0cd-199b-5ec6-b280-ec5c6e92338a:pdf:a1",
)
def status_command(task_id: TaskId, as_json: AsJson = False) -> None:
    """Show a task's state: Celery's, or the ledger's of its run or delivery."""
    with _monitor() as (monitor, _):
        found = monitor.get_task_status(task_id)
    if as_json:
        print_json(found)
        return
    console = Console(emoji=False, highlight=False)
    for name, value in found.items():
        if value is not None:
            console.print(f"{name.replace('_', ' '):<9} {cell(value)}", soft_wrap=True)
    if found["source"] == "celery" and found["state"] == "PENDING":
        console.print("Neither Celery nor the ledger knows more: it waits, or there is none such.")


@app.command("revoke", epilog="Example: scanherald tasks revoke 3f0c9d1e --terminate --yes")
def revoke_command(
    task_id: TaskId,
    terminate: Annotated[
        bool, typer.Option("--terminate", help="Kill its process if it is at work.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Tell workers not to start a task.  For all of a run: `scanherald runs cancel`.

    A run or delivery that it worked for is taken up again by the sweep.
    """
    confirm(f"Revoke the task {task_id}{' and kill it at work' if terminate else ''}?", yes=yes)
    with _monitor() as (monitor, _):
        found = monitor.revoke_task(task_id, terminate)
    if as_json:
        print_json(found)
        return
    Console().print(
        f"Workers are told to leave {cell(task_id)}. Those that are away now never learn of it; "
        "what the ledger has recorded, the sweep takes up again.",
        soft_wrap=True,
    )


@app.command("purge", epilog="Example: scanherald tasks purge notifications --yes")
def purge_command(
    queue: Annotated[
        str, typer.Argument(metavar="QUEUE", help="default, reports or notifications.")
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Drop the waiting messages of a queue, of every priority.  The ledger stays whole.

    What is recorded is published again by the sweep; a result that somebody waits
    for by `.get()` never comes.
    """
    from tasks.app import QUEUES

    if queue not in QUEUES:
        raise InvalidSettings(f"no queue {queue!r}; there are: {', '.join(QUEUES)}")
    with _monitor() as (monitor, parts):
        waiting = monitor.get_queue_stats()["queues"][queue]
        confirm(f"Drop {waiting} waiting messages of {queue}?", yes=yes)
        found = monitor.purge_queue(queue)
    afterwards = _afterwards(queue, parts)
    if as_json:
        print_json({**found, "afterwards": afterwards})
    else:
        Console().print(f"{found['purged']} messages dropped. {afterwards}", soft_wrap=True)


def _afterwards(queue: str, parts: Wiring) -> str:
    """What the sweep makes of a purge."""
    settings = parts.settings
    return {
        "reports": "Nothing recorded is lost: the sweep publishes a run again when its deadline "
        f"has passed, at most {settings.run_deadline_s / 60:.0f} min after it was dispatched.",
        "notifications": "Nothing recorded is lost: the sweep starts deliveries again within "
        f"{(settings.starting_grace_s + settings.sweep_interval_s) / 60:.0f} min or so, and runs "
        f"whose body was dropped after {settings.run_deadline_s / 60:.0f} min at most.",
        "default": "Beat asks again for sweep, monitoring and cleanup when each is due.",
    }[queue]


@contextmanager
def _monitor() -> Iterator[tuple[CeleryMonitor, Wiring]]:
    from tasks import wiring
    from tasks.monitoring import get_celery_monitor

    wiring.use(load_settings())
    parts = wiring.current()
    try:
        yield get_celery_monitor(), parts
    finally:
        parts.close()


def _answered(found: dict[str, Any]) -> None:
    if not found:
        raise BrokerUnavailable(NOBODY)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
