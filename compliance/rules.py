"""Rule packs: what a finding rests on, kept as versioned data that can be switched.

A pack is a JSON file in ``packs/`` named ``<id>-<version>.json``.  Its conditions
are a small typed vocabulary, decoded into structs and turned into predicates;
there is no code in data.  Judging an old scan by another version separates a
change of the rules from a change of the site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from compliance.durations import MONTH
from schemas.errors import InvalidSettings
from schemas.reports import (
    Category,
    Evidence,
    Finding,
    InventoryCookie,
    Party,
    Severity,
    StorageKey,
)
from schemas.scans import cut

PACKS = Path(__file__).parent / "packs"

MAX_EVIDENCE = 100
"""Pieces of evidence a finding lists; the inventory names its rules for all cookies."""

MAX_LABEL_BYTES = 160
"""A label points at the evidence; the full value stands in the inventory."""

Texts: TypeAlias = Mapping[str, str]
CookieTest: TypeAlias = Callable[[InventoryCookie], bool]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of the vocabulary: a misspelt word in a pack is an error, never ignored."""


class All(_Strict, frozen=True, tag="all"):
    """Every part holds."""

    of: tuple[Condition, ...]


class AnyOf(_Strict, frozen=True, tag="any"):
    """At least one part holds."""

    of: tuple[Condition, ...]


class CategoryIs(_Strict, frozen=True, tag="category"):
    """The cookie's category is one of these."""

    any_of: tuple[Category, ...]


class PartyIs(_Strict, frozen=True, tag="party"):
    """The cookie's party is one of these."""

    any_of: tuple[Party, ...]


class BeforeConsent(_Strict, frozen=True, tag="before_consent"):
    """The cookie was there before the visitor chose; unknown does not count."""


class SessionCookie(_Strict, frozen=True, tag="session"):
    """The cookie ends with the browser session."""


class LifetimeOver(_Strict, frozen=True, tag="lifetime_over"):
    """The cookie lives longer than so many months."""

    months: float


class Missing(_Strict, frozen=True, tag="missing"):
    """The source does not state this field."""

    field: Literal["vendor", "purpose", "duration"]


class FlagIs(_Strict, frozen=True, tag="flag"):
    """A flag was observed with this value; a flag not reported does not count."""

    flag: Literal["secure", "http_only"]
    value: bool


class SameSiteIs(_Strict, frozen=True, tag="same_site"):
    """The SameSite attribute is one of these words, in lower case."""

    any_of: tuple[str, ...]


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

    id: str
    """Stable across versions of the pack."""
    severity: Severity
    title: str
    explanation: str
    action: str
    source: str
    source_url: str | None = None
    scope: str | None = None
    when: Condition | StorageKeyPresent


class RulePack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A versioned set of rules."""

    id: str
    version: str
    title: str
    rules: tuple[Rule, ...]


_decoder = msgspec.json.Decoder(RulePack)


def decode_pack(data: bytes, *, path: str) -> RulePack:
    """Decode and check one pack.  Raises InvalidSettings that names ``path`` and the offence."""
    try:
        pack = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSettings(f"rule pack {path}: {error}") from error
    ids = [rule.id for rule in pack.rules]
    if len(set(ids)) < len(ids):
        twice = sorted({rule_id for rule_id in ids if ids.count(rule_id) > 1})
        raise InvalidSettings(f"rule pack {path}: rule ids appear twice: {', '.join(twice)}")
    return pack


def known_packs(folder: Path = PACKS) -> dict[str, Path]:
    """Pack files by ``<id>-<version>``."""
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


@cache
def load_pack(name: str, folder: Path = PACKS) -> RulePack:
    """The pack ``name``: an id for its newest version, or ``<id>-<version>`` for that one.

    Reads package data once per process.  Raises InvalidSettings that lists the
    known packs, or names the file and the offence in it.
    """
    packs = {
        stem: decode_pack(path.read_bytes(), path=str(path))
        for stem, path in known_packs(folder).items()
    }
    if name in packs:
        return packs[name]
    versions = [pack for pack in packs.values() if pack.id == name]
    if not versions:
        known = ", ".join(sorted({pack.id for pack in packs.values()} | set(packs)))
        raise InvalidSettings(f"rule pack {name!r} is not known; known packs: {known}")
    return max(versions, key=lambda pack: _version_order(pack.version))


def _version_order(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def cookie_test(condition: Condition) -> CookieTest:
    """The predicate that ``condition`` describes."""
    match condition:
        case All(of=parts):
            every = [cookie_test(part) for part in parts]
            return lambda cookie: all(test(cookie) for test in every)
        case AnyOf(of=parts):
            some = [cookie_test(part) for part in parts]
            return lambda cookie: any(test(cookie) for test in some)
        case CategoryIs(any_of=categories):
            return lambda cookie: cookie.category in categories
        case PartyIs(any_of=parties):
            return lambda cookie: cookie.party in parties
        case BeforeConsent():
            return lambda cookie: cookie.before_consent is True
        case SessionCookie():
            return lambda cookie: cookie.is_session
        case LifetimeOver(months=months):
            limit = months * MONTH
            return lambda cookie: (cookie.duration_seconds or 0) > limit
        case Missing(field=field):
            return lambda cookie: getattr(cookie, field) is None
        case FlagIs(flag=flag, value=value):
            return lambda cookie: getattr(cookie, flag) is value
        case SameSiteIs(any_of=words):
            return lambda cookie: (cookie.same_site or "").strip().lower() in words
        case NeedsReview():
            return lambda cookie: cookie.needs_review


def judge(
    pack: RulePack,
    cookies: Sequence[InventoryCookie],
    storages: Sequence[StorageKey],
    texts: Texts,
) -> tuple[list[InventoryCookie], list[Finding]]:
    """Every cookie with the ids of the rules that name it, and the findings, worst first.

    Linear in cookies and storage keys.  Findings rank by severity, then by how
    much evidence there is, then by id.
    """
    findings: list[Finding] = []
    named: list[list[str]] = [[] for _ in cookies]
    for rule in pack.rules:
        if isinstance(rule.when, StorageKeyPresent):
            count = len(storages)
            evidence = [_storage_evidence(key, texts) for key in storages[:MAX_EVIDENCE]]
        else:
            test = cookie_test(rule.when)
            hits = [cookie for cookie in cookies if test(cookie)]
            for cookie in hits:
                named[cookie.number - 1].append(rule.id)
            count = len(hits)
            evidence = [_cookie_evidence(cookie, texts) for cookie in hits[:MAX_EVIDENCE]]
        if count:
            findings.append(_finding(rule, count, evidence))
    findings.sort(key=lambda finding: (-finding.severity.rank, -finding.count, finding.rule_id))
    judged = [
        msgspec.structs.replace(cookie, rule_ids=tuple(ids)) if ids else cookie
        for cookie, ids in zip(cookies, named, strict=True)
    ]
    return judged, findings


def _finding(rule: Rule, count: int, evidence: Sequence[Evidence]) -> Finding:
    return Finding(
        rule_id=rule.id,
        severity=rule.severity,
        title=rule.title,
        explanation=rule.explanation,
        action=rule.action,
        source=rule.source,
        source_url=rule.source_url,
        scope=rule.scope,
        count=count,
        evidence=tuple(evidence),
    )


def _cookie_evidence(cookie: InventoryCookie, texts: Texts) -> Evidence:
    label = texts["evidence.cookie"].format(
        name=cookie.name or texts["evidence.no_name"],
        domain=cookie.domain or texts["evidence.no_domain"],
    )
    return Evidence(label=cut(label, MAX_LABEL_BYTES), cookie_number=cookie.number)


def _storage_evidence(key: StorageKey, texts: Texts) -> Evidence:
    label = texts["evidence.storage"].format(area=key.area, key=key.key)
    return Evidence(label=cut(label, MAX_LABEL_BYTES))
