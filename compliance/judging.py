"""One cookie, one storage key at a time: what a pack's rules find, and on which evidence.

Conditions are turned into predicates here; there is no code in data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from compliance.durations import MONTH
from compliance.rules import (
    All,
    AnyOf,
    BeforeConsent,
    CategoryIs,
    Condition,
    FlagIs,
    LifetimeOver,
    Missing,
    NeedsReview,
    PartyIs,
    Rule,
    RulePack,
    SameSiteIs,
    SessionCookie,
    StorageKeyPresent,
)
from languages.language import Language
from schemas.reports import Evidence, Finding, InventoryCookie, StorageKey
from schemas.scans import cut

MAX_EVIDENCE = 100
"""Pieces of evidence a finding lists; the inventory names its rules for all cookies."""

MAX_LABEL_BYTES = 160
"""A label points at the evidence; the full value stands in the inventory."""

CookieTest: TypeAlias = Callable[[InventoryCookie], bool]


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
    texts: Language,
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
            findings.append(_finding(rule, count, evidence, texts))
    findings.sort(key=lambda finding: (-finding.severity.rank, -finding.count, finding.rule_id))
    judged = [
        msgspec.structs.replace(cookie, rule_ids=tuple(ids)) if ids else cookie
        for cookie, ids in zip(cookies, named, strict=True)
    ]
    return judged, findings


def _finding(rule: Rule, count: int, evidence: Sequence[Evidence], texts: Language) -> Finding:
    return Finding(
        rule_id=rule.id,
        severity=rule.severity,
        title=texts.translate(rule.title),
        explanation=texts.translate(rule.explanation),
        action=texts.translate(rule.action),
        source=texts.translate(rule.source),
        source_url=rule.source_url,
        scope=None if rule.scope is None else texts.translate(rule.scope),
        count=count,
        evidence=tuple(evidence),
    )


def _cookie_evidence(cookie: InventoryCookie, texts: Language) -> Evidence:
    label = texts.say(
        "evidence.cookie",
        name=cookie.name or texts["evidence.no_name"],
        domain=cookie.domain or texts["evidence.no_domain"],
    )
    return Evidence(label=cut(label, MAX_LABEL_BYTES), cookie_number=cookie.number)


def _storage_evidence(key: StorageKey, texts: Language) -> Evidence:
    label = texts.say("evidence.storage", area=key.area, key=key.key)
    return Evidence(label=cut(label, MAX_LABEL_BYTES))
