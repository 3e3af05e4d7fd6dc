"""Settings from files: ``NAME_FILE=/path`` in the place of ``NAME=value``.

Orchestrators hand secrets over as files, which neither a list of processes nor a
dump of an environment shows.  One newline at the end is the editor's, not the
value's.  A value is never shown, whatever is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.errors import InvalidSettings

SUFFIX = "_FILE"

MAX_BYTES = 64 * 1024
"""More than any setting takes: a larger file is another one than was meant."""


def values_from_files(
    names: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> dict[str, str]:
    """The text of each setting that comes from a file, by its field.

    ``names`` are each field's variables.  An empty variable counts as absent.
    Raises InvalidSettings that names every variable that cannot be used.
    """
    found: dict[str, str] = {}
    problems: list[str] = []
    for field, variables in names.items():
        given = given_by(variables, environment)
        if not any(name.endswith(SUFFIX) for name in given):
            continue
        if len(given) > 1:
            problems.append(f"{' and '.join(given)} are both given: keep one")
            continue
        (name,) = given
        try:
            found[field] = _read(Path(given[name]))
        except ValueError as error:
            problems.append(f"{name} ({given[name]}): {error}")
    if problems:
        raise InvalidSettings(f"settings: {'; '.join(problems)}")
    return found


def given_by(variables: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Those of a setting's variables that are set, with files' names; case does not matter."""
    known = {name.upper(): value for name, value in environment.items()}
    names = [name for variable in variables for name in (variable, variable + SUFFIX)]
    return {name: known[name] for name in names if known.get(name)}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"holds more than {MAX_BYTES // 1024} KiB: is it the right file?")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # the cause is left out, for it quotes a byte of the value
        raise ValueError("is not UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise ValueError("is empty")
    return text
