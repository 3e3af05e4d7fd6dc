"""``config``: what the settings are, where each comes from, and whether they work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.masking import masked
from cli.output import cell, print_json
from cli.records import AsJson
from schemas.errors import InvalidSettings
from schemas.health import PartHealth, State, worst
from schemas.settings import Settings, environment_name, load_settings, origin_of

app = typer.Typer(
    no_args_is_help=True,
    help="What the settings are, and whether they work.",
    epilog="Example: scanherald config check",
)

WORDS = {State.HEALTHY: "ok", State.DEGRADED: "warning", State.DOWN: "failed"}
COLOURS = {State.HEALTHY: "green", State.DEGRADED: "yellow", State.DOWN: "red"}


@app.command(epilog="Example: scanherald config show --all")
def show(
    everything: Annotated[
        bool, typer.Option("--all", help="Those with their defaults too; JSON has them always.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print each setting's value in force and where it comes from; secrets are masked."""
    rows = list(_rows(load_settings()))
    if as_json:
        print_json(rows)
        return
    console = Console(emoji=False, highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    shown = [row for row in rows if everything or row["from"] != "default"]
    for row in shown:
        table.add_row(row["setting"], cell(_as_typed(row["value"])), cell(row["from"]))
    if shown:
        console.print(table)
    if len(shown) < len(rows):
        console.print(f"{len(rows) - len(shown)} others have their defaults; --all shows them.")


def _rows(settings: Settings) -> Iterator[dict[str, Any]]:
    for field in Settings.model_fields:
        origin = origin_of(field, os.environ)
        path = os.environ.get(origin) if origin.endswith("_FILE") else None
        yield {
            "setting": environment_name(field),
            "value": masked(getattr(settings, field)),
            "from": f"{origin} ({path})" if path else origin,
        }


def _as_typed(value: Any) -> str:
    """The value as an operator would type it."""
    if isinstance(value, list):
        return ",".join("=".join(item) if isinstance(item, list) else str(item) for item in value)
    return "-" if value is None else str(value)


@app.command(epilog="Example: scanherald config check --json")
def check(as_json: AsJson = False) -> None:
    """Try every setting that points somewhere: ok, a warning, or failed, with what to do.

    Sends nothing to anybody and makes nothing.  Exit status: 0, also with
    warnings; 1 where something failed.
    """
    found = _found()
    state = worst(part.state for part in found)
    if as_json:
        checks = [
            {
                "check": part.part,
                "result": WORDS[part.state],
                "says": part.says,
                "do": part.do,
                "latency_ms": part.latency_ms,
            }
            for part in found
        ]
        print_json({"result": WORDS[state], "checks": checks})
    else:
        _print(found)
    raise typer.Exit(1 if state is State.DOWN else 0)


def _found() -> list[PartHealth]:
    try:
        settings = load_settings()
    except InvalidSettings as error:
        return [PartHealth("settings", State.DOWN, str(error), "see docs/configuration.md")]
    from listener.config_check import check_all
    from tasks import wiring
    from tasks.logs import configure_logs

    configure_logs(settings.model_copy(update={"log_level": "ERROR"}))  # the table says the rest
    wiring.use(settings)
    return check_all(wiring.current(), os.environ)


def _print(found: list[PartHealth]) -> None:
    console = Console(emoji=False, highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for column in ("check", "result"):
        table.add_column(column, no_wrap=True)
    table.add_column("says", overflow="fold")
    for part in found:
        says = cell(part.says) + (f"\n[bold]→[/bold] {cell(part.do)}" if part.do else "")
        table.add_row(part.part, f"[{COLOURS[part.state]}]{WORDS[part.state]}[/]", says)
    console.print(table)
