"""How commands print: a table for eyes, JSON where a script reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

OPTIONS = (
    orjson.OPT_INDENT_2
    | orjson.OPT_UTC_Z
    | orjson.OPT_NON_STR_KEYS  # column names are a subclass of str
)

NOT_PRINTABLE = {code: f"\\x{code:02x}" for code in [*range(32), 127, *range(128, 160)]}
"""Control characters from scans must not drive the terminal."""


def print_rows(
    rows: Iterable[Mapping[str, Any] | RowMapping],
    columns: Sequence[str],
    *,
    as_json: bool,
    empty: str,
) -> None:
    """Print rows as a table of ``columns``, or whole as a JSON array on standard output."""
    listed: list[dict[str, Any]] = [dict(row) for row in rows]
    if as_json:
        print_json(listed)
        return
    console = Console(emoji=False)  # a scan's text stays as it is
    if not listed:
        console.print(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        numeric = all(isinstance(row.get(column), int | float | None) for row in listed)
        table.add_column(
            column.replace("_", " "), justify="right" if numeric else "left", overflow="fold"
        )
    for row in listed:
        table.add_row(*(cell(row.get(column)) for column in columns))
    console.print(table)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=OPTIONS) + b"\n")
    sys.stdout.buffer.flush()


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed, unless ``--yes`` was given.

    Raises InvalidSettings where nobody can be asked, typer.Abort on a no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidSettings(f"{question} Nobody can be asked here: add --yes")
    typer.confirm(question, abort=True, err=True)


def cell(value: Any) -> str:
    """One value for a table: harmless to rich and to the terminal."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return escape(str(value).translate(NOT_PRINTABLE))
