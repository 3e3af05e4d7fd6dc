"""``health … --live``: whether processes of this machine live, by their heartbeat files alone.

Orchestrators ask this every few seconds, so it costs as little as Python allows:
the standard library, one folder, no network.  ``cli.entry`` comes here before it
loads the command line, which takes many times as long.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.health import EXIT_STATUS, PartHealth, State, worst
from store.heartbeats import PARTS, heartbeat_folder, judge_liveness, read_heartbeats


class Question(NamedTuple):
    """Which parts, and how to answer."""

    parts: tuple[str, ...]
    as_json: bool


def question_of(arguments: Sequence[str]) -> Question | None:
    """What a command line asks, if it is this and nothing more; the rest is Typer's."""
    if arguments[:1] != ["health"] or "--live" not in arguments:
        return None
    rest = [argument for argument in arguments[1:] if argument not in ("--live", "--json")]
    if not set(rest) <= set(PARTS):
        return None
    return Question(tuple(rest), "--json" in arguments)


def folder_is_in_a_file(environment: Mapping[str, str]) -> bool:
    """Whether the folder of heartbeats has to be read with the settings, which takes longer."""
    names = ("SCANHERALD_HEARTBEATS_DIR_FILE", "SCANHERALD_DATA_DIR_FILE")
    return any(environment.get(name) for name in names)


def answer(question: Question, folder: Path | None = None) -> int:
    """Print how the parts are; returns the exit status.

    ``folder`` is the environment's unless it is given.  Without named parts
    those of which there is a heartbeat are judged, and at least one is needed.
    """
    found = look(folder or heartbeat_folder(os.environ), question.parts)
    state = worst(part.state for part in found)
    if question.as_json:
        print_health(state, found)
    else:
        for part in found:
            do = f"\n  {part.do}" if part.do else ""
            sys.stdout.write(f"{part.part:<10} {part.state:<9} {part.says}{do}\n")
    return EXIT_STATUS[state]


def look(folder: Path, parts: Sequence[str]) -> list[PartHealth]:
    """How each part is."""
    began = time.monotonic()
    beats, now = read_heartbeats(folder), time.time()
    known = {beat.part for beat in beats}
    asked = parts or [part for part in PARTS if part in known]
    found = [judge_liveness(part, [b for b in beats if b.part == part], now) for part in asked]
    if not found:
        found = [
            PartHealth(
                "any part",
                State.DOWN,
                f"no heartbeat in {folder}",
                "start one, or point SCANHERALD_DATA_DIR or SCANHERALD_HEARTBEATS_DIR at its "
                "folder",
            )
        ]
    took_ms = round((time.monotonic() - began) * 1000, 1)
    return [part._replace(latency_ms=took_ms) for part in found]


def print_health(state: State, found: Sequence[PartHealth]) -> None:
    """The whole answer as one line of JSON."""
    told = {"state": state, "parts": [part._asdict() for part in found]}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
