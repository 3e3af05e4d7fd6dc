"""``subscribers import``: many subscribers from one file, all of them or none.

Each line is a set of wishes like the options of ``subscribers add``, and is
checked by the same code.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from cli.output import cell, print_json
from cli.wishes import Granted, Wishes, grant
from schemas.errors import InvalidSettings, PermanentError
from schemas.notifications import ChannelAddress, ChannelKind, Subscriber
from schemas.settings import Settings, load_settings

FIELDS = ("subscriber_id", *Wishes.__dataclass_fields__)
LISTS = frozenset({"events", "domains", "attach"})
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Line:
    """One subscriber as the file has it, and where: a line, or an item of a JSON list."""

    number: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """Why a line cannot be imported."""

    line: int
    subscriber_id: str
    error: str


def import_file(path: Path, *, dry_run: bool, as_json: bool) -> int:
    """Import a file and say what came of it; returns the exit status."""
    from store.subscribers import list_subscribers, save_subscriber
    from tasks.wiring import wire

    try:
        lines = read_lines(path.name, path.read_bytes())
    except OSError as error:
        raise PermanentError(f"cannot read {path}: {error.strerror}") from error
    parts = wire(load_settings())
    try:
        parts.ledger.migrate()
        with parts.ledger.write() as connection:
            known = {item.subscriber_id: item for item in list_subscribers(connection, parts.box)}
            granted, bad = grant_lines(lines, known, parts.settings)
            if not bad and not dry_run:
                for item in granted:
                    save_subscriber(connection, item.subscriber, parts.box, parts.clock())
    finally:
        parts.close()
    new = sum(1 for item in granted if item.subscriber.subscriber_id not in known)
    _print(granted, bad, new, dry_run=dry_run, as_json=as_json)
    return 1 if bad else 0


def read_lines(name: str, data: bytes) -> list[Line]:
    """The subscribers in a file, CSV or JSON by its name.  Raises InvalidSettings."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"{name} is not UTF-8: {error}") from error
    kind = name.rpartition(".")[2].lower()
    if kind == "csv":
        return list(_csv_lines(name, text))
    if kind in ("jsonl", "ndjson"):
        return [
            Line(number, _object(f"{name} line {number}", _json(f"{name} line {number}", line)))
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
    if kind != "json":
        raise InvalidSettings(f"{name} is not named .csv, .json or .jsonl")
    listed = _json(name, text)
    if not isinstance(listed, list):
        raise InvalidSettings(f"{name} is not a list of objects; one object per line is .jsonl")
    return [
        Line(number, _object(f"{name} item {number}", item))
        for number, item in enumerate(listed, 1)
    ]


def grant_lines(
    lines: Iterable[Line], known: Mapping[str, Subscriber], settings: Settings
) -> tuple[list[Granted], list[BadLine]]:
    """What each line makes, and every line that is bad.

    A line makes the subscriber anew; only the secret of a webhook whose address
    stays is kept.
    """
    granted: list[Granted] = []
    bad: list[BadLine] = []
    seen: dict[str, int] = {}
    for line in lines:
        said = line.fields.get("subscriber_id")
        name = said.strip() if isinstance(said, str) else ""
        try:
            if not isinstance(said, str | None):
                raise InvalidSettings("subscriber_id is not a text")
            if name in seen:
                raise InvalidSettings(f"the subscriber is in line {seen[name]} already")
            seen[name] = line.number
            wishes = _wishes(line.fields)
            fresh = Subscriber(subscriber_id=name, channels=_kept_secret(wishes, known.get(name)))
            granted.append(grant(wishes, fresh, settings))
        except PermanentError as error:
            bad.append(BadLine(line.number, name, str(error)))
    return granted, bad


def _kept_secret(wishes: Wishes, before: Subscriber | None) -> tuple[ChannelAddress, ...]:
    return tuple(
        address
        for address in (before.channels if before else ())
        if address.kind is ChannelKind.WEBHOOK and address.target == wishes.webhook
    )


def _wishes(fields: dict[str, Any]) -> Wishes:
    """Raises InvalidSettings for a field that is unknown or of another type."""
    said: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in FIELDS:
            near = get_close_matches(name, FIELDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(FIELDS)}"
            raise InvalidSettings(f"field {name!r} is unknown; {hint}")
        if name == "subscriber_id" or value in (None, "", []):
            continue
        said[name] = _value(name, value)
    return Wishes(**said)


def _value(name: str, value: Any) -> Any:
    if name == "paused":
        known = value if isinstance(value, bool) else _YES_NO.get(str(value).strip().lower())
        if known is None:
            raise InvalidSettings(f"paused is {value!r}, neither true nor false")
        return known
    if name in LISTS:
        items = value.replace(";", " ").split() if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise InvalidSettings(f"{name} is not a list of words")
        return tuple(items)
    if not isinstance(value, str):
        raise InvalidSettings(f"{name} is not a text")
    return value.strip()


def _csv_lines(name: str, text: str) -> Iterator[Line]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or ())
        if "subscriber_id" not in columns:
            raise InvalidSettings(
                f"{name} has no column subscriber_id; its first line names the columns"
            )
        if twice := [column for column in FIELDS if columns.count(column) > 1]:
            raise InvalidSettings(f"{name} has more than one column {', '.join(twice)}")
        for row in reader:
            if None in row:
                raise InvalidSettings(
                    f"{name} line {reader.line_num} has more cells than the first line has columns"
                )
            yield Line(reader.line_num, {key: value for key, value in row.items() if value})
    except csv.Error as error:
        raise InvalidSettings(f"{name} line {reader.line_num}: {error}") from error


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as error:
        raise InvalidSettings(f"{where} is not JSON: {error}") from error


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; the library would silently take the last of two fields of one name."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = [name for name in fields if names.count(name) > 1]
        raise ValueError(f"an object names {', '.join(twice)} more than once")
    return fields


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSettings(f"{where} is not a JSON object")
    return value


def _print(
    granted: list[Granted], bad: list[BadLine], new: int, *, dry_run: bool, as_json: bool
) -> None:
    made = {item.subscriber.subscriber_id: item.made_secret for item in granted if item.made_secret}
    written = not bad and not dry_run
    if as_json:
        print_json(
            {
                "imported": len(granted) if written else 0,
                "new": new if written else 0,
                "webhook_secrets": made if written else {},
                "errors": [msgspec.to_builtins(item) for item in bad],
            }
        )
        return
    if bad:
        console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        for item in bad:
            console.print(f"line {item.line}, {cell(item.subscriber_id)}: {cell(item.error)}")
        console.print(
            f"[red]error:[/red] {len(bad)} of {len(bad) + len(granted)} lines are bad; "
            "nothing was imported"
        )
        return
    console = Console(highlight=False, soft_wrap=True)
    would = "Would import" if dry_run else "Imported"
    console.print(f"{would} {len(granted):,} subscribers, {new:,} of them new.")
    if written:
        for name, secret in made.items():
            console.print(f"Webhook secret of {cell(name)}, shown this once: {secret}")
