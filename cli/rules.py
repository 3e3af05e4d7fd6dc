"""``rules``: the packs that are known, what is in them, and what is wrong with a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console

from cli.output import cell, print_json, print_rows
from cli.records import AsJson
from cli.settings import load_settings
from schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from schemas.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Rule packs: what findings rest on.",
    epilog="Example: scanherald rules list. How to write one: docs/rules.md.",
)


@app.command("list", epilog="Example: scanherald rules list --json")
def list_command(as_json: AsJson = False) -> None:
    """List rule packs with their versions and where they come from."""
    rows = _listed(load_settings())
    columns = ["pack", "version", "rules", "judges", "from", "title"]
    print_rows(
        rows,
        columns + ["fault"] * any("fault" in row for row in rows),
        as_json=as_json,
        empty="No rule packs.",
    )


@app.command("show", epilog="Example: scanherald rules show eu-baseline")
def show_command(
    pack: Annotated[str, typer.Argument(help="Its id for the newest version, or id-version.")],
    as_json: AsJson = False,
) -> None:
    """Show every rule of a pack: severity, what it finds, its source and scope."""
    from compliance.rules import load_pack

    found = load_pack(pack, load_settings().rule_packs_dir)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    Console(emoji=False, highlight=False).print(f"{cell(found.name)}: {cell(found.title)}\n")
    print_rows(
        [msgspec.to_builtins(rule) for rule in found.rules],
        ("id", "severity", "title", "source", "scope"),
        as_json=False,
        empty="No rules.",
    )


@app.command("check", epilog="Example: scanherald rules check packs/acme-2026.1.json")
def check_command(
    file: Annotated[Path, typer.Argument(help="A rule pack's file.")],
    as_json: AsJson = False,
) -> None:
    """Check a pack's file; exit status 1 names every fault with its line or JSON path."""
    from compliance.rules import file_faults

    faults = file_faults(file)
    if as_json:
        print_json({"file": str(file), "faults": faults})
    else:
        console = Console(emoji=False, highlight=False, soft_wrap=True)
        for fault in faults:
            console.print(f"{cell(file)}: {cell(fault)}")
        if not faults:
            console.print(f"{cell(file)}: sound")
    if faults:
        raise typer.Exit(1)


def _listed(settings: Settings) -> list[dict[str, Any]]:
    """One row per file; a broken one says so and does not hide the rest."""
    from compliance.rules import PACKS, known_packs, load_pack, read_pack

    folder = settings.rule_packs_dir
    judge = load_pack(settings.rule_pack, folder).name
    rows: list[dict[str, Any]] = []
    for name, path in known_packs(folder).items():
        origin = "shipped" if path.parent == PACKS else str(path.parent)
        try:
            pack = read_pack(path)
        except InvalidSettings as error:
            rows.append({"pack": name, "from": origin, "fault": str(error)})
            continue
        rows.append(
            {
                "pack": pack.id,
                "version": pack.version,
                "rules": len(pack.rules),
                "judges": "new scans" if name == judge else None,
                "from": origin,
                "title": pack.title,
            }
        )
    return rows
