"""Rule packs: what a finding rests on, kept as versioned data that can be switched.

A pack is a JSON file named ``<id>-<version>.json``, in ``packs/`` or in the
operator's own folder.  Its conditions are a small typed vocabulary; there is no
code in data.  Judging an old scan by another version separates a change of the
rules from a change of the site.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from schemas.errors import InvalidSettings
from schemas.reports import Category, Party, Severity
from schemas.scans import NO_CONTROLS

PACKS = Path(__file__).parent / "packs"
"""The packs that are shipped."""

MAX_DEPTH = 20
"""How deep conditions may be nested: nobody can follow more."""

_ID = r"^[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*$(?!\n)"
_VERSION = r"^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8}))*$(?!\n)"
_RULE_ID = r"^[a-z0-9]+([.-][a-z0-9]+)*$(?!\n)"
_HTTPS = r"^https?://"

_IN_WORDS = {
    _ID: "lower-case words joined by hyphens, each beginning with a letter, such as eu-baseline",
    _VERSION: "whole numbers joined by dots, such as 2026.1",
    _RULE_ID: "lower-case words joined by dots and hyphens, such as consent.before-choice",
    _HTTPS: "an address that begins with https:// or http://",
    NO_CONTROLS: "a text without line breaks and other control characters",
}
"""What the decoder says with a pattern, said for whoever writes a pack."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000, pattern=NO_CONTROLS)]
"""One paragraph for a reader of the report."""

Line = Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=NO_CONTROLS)]
"""One line for a reader of the report."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of the vocabulary: a misspelt word in a pack is an error, never ignored."""


class All(_Strict, frozen=True, tag="all"):
    """Every part holds."""

    of: Annotated[tuple[Condition, ...], msgspec.Meta(min_length=1)]


class AnyOf(_Strict, frozen=True, tag="any"):
    """At least one part holds."""

    of: Annotated[tuple[Condition, ...], msgspec.Meta(min_length=1)]


class CategoryIs(_Strict, frozen=True, tag="category"):
    """The cookie's category is one of these."""

    any_of: Annotated[tuple[Category, ...], msgspec.Meta(min_length=1)]


class PartyIs(_Strict, frozen=True, tag="party"):
    """The cookie's party is one of these."""

    any_of: Annotated[tuple[Party, ...], msgspec.Meta(min_length=1)]


class BeforeConsent(_Strict, frozen=True, tag="before_consent"):
    """The cookie was there before the visitor chose; unknown does not count."""


class SessionCookie(_Strict, frozen=True, tag="session"):
    """The cookie ends with the browser session."""


class LifetimeOver(_Strict, frozen=True, tag="lifetime_over"):
    """The cookie lives longer than so many months."""

    months: Annotated[float, msgspec.Meta(gt=0, le=1200)]
    """A month is a twelfth of 365.25 days."""


class Missing(_Strict, frozen=True, tag="missing"):
    """The source does not state this field."""

    field: Literal["vendor", "purpose", "duration"]


class FlagIs(_Strict, frozen=True, tag="flag"):
    """A flag was observed with this value; a flag not reported does not count."""

    flag: Literal["secure", "http_only"]
    value: bool


class SameSiteIs(_Strict, frozen=True, tag="same_site"):
    """The SameSite attribute is one of these words, in lower case."""

    any_of: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]+$(?!\n)")], ...],
        msgspec.Meta(min_length=1),
    ]


class NeedsReview(_Strict, frozen=True, tag="needs_review"):
    """The classifier asked for a person."""


class StorageKeyPresent(_Strict, frozen=True, tag="storage_key_present"):
    """A key was found in the web storage: the one condition on storage, not on cookies."""


Condition: TypeAlias = (
    All
    | AnyOf
    | CategoryIs
    | PartyIs
    | BeforeConsent
    | SessionCookie
    | LifetimeOver
    | Missing
    | FlagIs
    | SameSiteIs
    | NeedsReview
)


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule with everything a reader needs to follow or dispute it."""

    id: Annotated[str, msgspec.Meta(max_length=100, pattern=_RULE_ID)]
    """Stable across versions of the pack."""
    severity: Severity
    """How much a finding weighs in the score."""
    title: Line
    """What was found, in a few words."""
    explanation: Text
    """What was found, and why it matters."""
    action: Text
    """What to do about it."""
    source: Line
    """The text the rule rests on, to the article or section."""
    source_url: Annotated[str, msgspec.Meta(max_length=500, pattern=_HTTPS)] | None = None
    """Where the source can be read."""
    scope: Line | None = None
    """Where the rule applies and where it does not."""
    when: Condition | StorageKeyPresent
    """What the rule looks for."""


class RulePack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A versioned set of rules; its file is named `<id>-<version>.json`."""

    id: Annotated[str, msgspec.Meta(max_length=60, pattern=_ID)]
    """The same in every version."""
    version: Annotated[str, msgspec.Meta(max_length=40, pattern=_VERSION)]
    """Compared number by number: 2026.10 is newer than 2026.9."""
    title: Line
    """What the pack is about."""
    rules: Annotated[tuple[Rule, ...], msgspec.Meta(min_length=1, max_length=500)]
    """Every rule has an id of its own."""

    @property
    def name(self) -> str:
        """``<id>-<version>``: what settings, runs and the file are called by."""
        return f"{self.id}-{self.version}"

    def title_of(self, rule_id: str) -> str | None:
        """A rule's title as the pack has it, in English; None for a rule of another pack."""
        return next((rule.title for rule in self.rules if rule.id == rule_id), None)


_decoder = msgspec.json.Decoder(RulePack)


def pack_faults(data: bytes) -> list[str]:
    """Every fault of a pack's bytes with its line or its JSON path; empty for a sound pack."""
    try:
        pack = _decoder.decode(data)
        faults = [
            f"conditions are nested more than {MAX_DEPTH} deep - at `$.rules[{number}].when`"
            for number, rule in enumerate(pack.rules)
            if _depth(rule.when) > MAX_DEPTH
        ]
    except msgspec.ValidationError as error:
        first = _in_words(error)
        in_rules = _rule_faults(data)
        return in_rules if first in in_rules else [first, *in_rules]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return [_with_line(str(error), data)]
    except RecursionError:
        return [f"conditions are nested more than {MAX_DEPTH} deep"]
    ids = [rule.id for rule in pack.rules]
    twice = sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1})
    return faults + ([f"rule ids appear twice: {', '.join(twice)}"] if twice else [])


def decode_pack(data: bytes, *, path: str) -> RulePack:
    """Decode and check one pack.  Raises InvalidSettings that names ``path`` and every fault."""
    faults = pack_faults(data)
    if faults:
        raise InvalidSettings(f"rule pack {path}: {'; '.join(faults)}")
    return _decoder.decode(data)


def file_faults(path: Path) -> list[str]:
    """Every fault of a pack's file, its name included; empty for one that can be used.

    Raises InvalidSettings for a file that cannot be read.
    """
    data = _bytes_of(path)
    faults = pack_faults(data)
    if faults:
        return faults
    name = _decoder.decode(data).name
    if path.name != f"{name}.json":
        faults.append(f"it holds {name}, so its file must be named {name}.json")
    shipped = PACKS / f"{name}.json"
    if shipped.exists() and not shipped.samefile(path):
        faults.append(f"{name} is a pack that is shipped; give yours another id")
    return faults


def read_pack(path: Path) -> RulePack:
    """The pack in a file that is named after it.  Raises InvalidSettings."""
    faults = file_faults(path)
    if faults:
        raise InvalidSettings(f"rule pack {path}: {'; '.join(faults)}")
    return _decoder.decode(_bytes_of(path))


def known_packs(folder: Path | None = None) -> dict[str, Path]:
    """Pack files by ``<id>-<version>``: those shipped, and those in the operator's ``folder``.

    Raises InvalidSettings where ``folder`` cannot be read, or holds a pack by the
    name of a shipped one: which of the two judged a report could not be told.
    """
    packs = _in_folder(PACKS)
    if folder is None:
        return packs
    own = _in_folder(folder)
    both = sorted(packs.keys() & own.keys())
    if both:
        raise InvalidSettings(
            f"rule pack {own[both[0]]}: {both[0]} is a pack that is shipped; give yours another id"
        )
    return packs | own


@cache
def load_pack(name: str, folder: Path | None = None) -> RulePack:
    """The pack ``name``: an id for its newest version, or ``<id>-<version>`` for that one.

    ``folder`` is the operator's, searched beside the shipped packs.  Reads files
    once per process.  Raises InvalidSettings that lists the known packs, or names
    the file and what is wrong with it.
    """
    return read_pack(_path_of(name, folder))


def _path_of(name: str, folder: Path | None) -> Path:
    packs = known_packs(folder)
    if name in packs:
        return packs[name]
    versions = [stem for stem in packs if stem.rpartition("-")[0] == name != ""]
    if not versions:
        ids = {stem.rpartition("-")[0] for stem in packs}
        known = ", ".join(sorted((ids | packs.keys()) - {""}))
        raise InvalidSettings(f"rule pack {name!r} is not known; known packs: {known}")
    return packs[max(versions, key=version_order)]


@cache
def pack_digest(name: str, folder: Path | None = None) -> str:
    """SHA-256 (hex) of the file of the pack ``<id>-<version>``, read once per process.

    Raises InvalidSettings as ``load_pack``.
    """
    return hashlib.sha256(_bytes_of(_path_of(name, folder))).hexdigest()


def load_frozen_pack(name: str, sha256: str | None, folder: Path | None = None) -> RulePack:
    """The pack that a run was recorded with, not what has become of its file since.

    ``sha256`` is None for runs of before packs were frozen by content.  Raises
    InvalidSettings where the pack is gone or its file was edited.
    """
    pack = load_pack(name, folder)
    if sha256 is not None and pack_digest(name, folder) != sha256:
        raise InvalidSettings(
            f"rule pack {name} was edited after it had judged scans; restore its file, and give "
            "the edited one a version of its own"
        )
    return pack


def version_order(name: str) -> tuple[int, ...]:
    """Sorts names of one pack's versions, oldest first; what is no version comes before all."""
    version = name.rpartition("-")[2]
    return tuple(map(int, version.split("."))) if re.match(_VERSION, version) else ()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"rule pack {path}: {error.strerror}") from error


def _in_folder(folder: Path) -> dict[str, Path]:
    try:
        return {
            path.stem: path
            for path in sorted(folder.iterdir())
            if path.suffix == ".json" and not path.name.startswith(".")
        }
    except OSError as error:
        raise InvalidSettings(f"rule packs in {folder}: {error.strerror}") from error


def _depth(condition: Condition | StorageKeyPresent) -> int:
    if isinstance(condition, All | AnyOf):
        return 1 + max(map(_depth, condition.of))
    return 1


def _rule_faults(data: bytes) -> list[str]:
    """The first fault of each rule; a decoder stops at the first of all."""
    pack = msgspec.json.decode(data)
    rules = pack.get("rules") if isinstance(pack, dict) else None
    faults = []
    for number, rule in enumerate(rules if isinstance(rules, list) else ()):
        try:
            msgspec.convert(rule, Rule)
        except msgspec.ValidationError as error:
            what, _, place = _in_words(error).partition(" - at `$")
            faults.append(f"{what} - at `$.rules[{number}]{place or '`'}")
    return faults


def _in_words(error: msgspec.ValidationError) -> str:
    """What the decoder said, with patterns in words."""
    text = str(error)
    for pattern, words in _IN_WORDS.items():
        text = text.replace(f" matching regex {pattern!r}", f": {words}")
    return text


def _with_line(fault: str, data: bytes) -> str:
    """A fault of the JSON itself, with line and column for an editor."""
    place = re.search(r" \(byte ([0-9]+)\)", fault)
    before = data[: int(place[1])] if place else data
    line = before.count(b"\n") + 1
    column = len(before) - (before.rfind(b"\n") + 1) + 1
    what = fault.replace(place[0], "") if place else fault
    return f"{what} - at line {line}, column {column}"
