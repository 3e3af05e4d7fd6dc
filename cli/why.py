"""``why``: the decision whether somebody was told of something, step by step."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from cli.output import cell, print_json
from cli.records import AsJson
from cli.settings import load_settings

MARKS = {"yes": "[green]✓[/green]", "no": "[red]✗[/red]", "waits": "[yellow]…[/yellow]"}


def why_command(
    subscriber_id: Annotated[str, typer.Argument(help="The subscriber's name.")],
    asked: Annotated[
        str, typer.Argument(metavar="EVENT|SCAN", help="Event key, scan, run, event or entry id.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say why a subscriber was told of something, or was not: each step, from the ledger.

    What the scan changed in its domain's violations, and which news it made; for
    each, whether the subscriber was known, what the filters compared, until when it
    was held and by which digest it was told, each try with what the other side
    answered, and what happens next.
    """
    from store.decisions import read_decision
    from store.ledger import open_ledger
    from tasks.explaining import explain
    from tasks.wiring import utc_now

    settings = load_settings()
    with open_ledger(settings.ledger_url) as ledger, ledger.read() as connection:
        decision = read_decision(connection, subscriber_id, asked)
    steps = explain(decision, utc_now(), settings)
    if as_json:
        print_json([msgspec.to_builtins(step) for step in steps])
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    shown = None
    for step in steps:
        if step.event_key != shown:
            shown = step.event_key
            console.print(f"\n[bold]{cell(shown)}[/bold]")
        at = f"  ({step.at:%Y-%m-%d %H:%M:%S} UTC)" if step.at else ""
        console.print(f"  {MARKS.get(step.verdict, '·')} {step.about}: {cell(step.text)}{at}")
