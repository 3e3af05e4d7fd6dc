"""What a pack's rules find, and on which evidence.

Each condition picks among the cookies here; there is no code in data.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def pick(condition: Condition, cookies: Sequence[InventoryCookie]) -> Sequence[InventoryCookie]:
    """Those of ``cookies`` that ``condition`` holds for, in their order."""
    # A list at a time, not a cookie at a time: a call for each cookie would cost the most.
    match condition:
        case All(of=parts):
            for part in parts:
                cookies = pick(part, cookies)
            return cookies
        case AnyOf(of=parts):
            some = {cookie.number for part in parts for cookie in pick(part, cookies)}
            return [cookie for cookie in cookies if cookie.number in some]
        case CategoryIs(any_of=categories):
            return [cookie for cookie in cookies if cookie.category in categories]
        case PartyIs(any_of=parties):
            return [cookie for cookie in cookies if cookie.party in parties]
        case BeforeConsent():
            return [cookie for cookie in cookies if cookie.before_consent is True]
        case SessionCookie():
            return [cookie for cookie in cookies if cookie.is_session]
        case LifetimeOver(months=months):
            limit = months * MONTH
            return [cookie for cookie in cookies if (cookie.duration_seconds or 0) > limit]
        case Missing(field=field):
            return [cookie for cookie in cookies if getattr(cookie, field) is None]
        case FlagIs(flag=flag, value=value):
            return [cookie for cookie in cookies if getattr(cookie, flag) is value]
        case SameSiteIs(any_of=words):
            return [
                cookie for cookie in cookies if (cookie.same_site or "").strip().lower() in words
            ]
        case NeedsReview():
            return [cookie for cookie in cookies if cookie.needs_review]


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
    known: dict[int, Evidence] = {}  # one cookie is the same evidence for every rule
    for rule in pack.rules:
        if isinstance(rule.when, StorageKeyPresent):
            count = len(storages)
            evidence = [_storage_evidence(key, texts) for key in storages[:MAX_EVIDENCE]]
        else:
            hits = pick(rule.when, cookies)
            for cookie in hits:
                named[cookie.number - 1].append(rule.id)
            count = len(hits)
            shown = hits[:MAX_EVIDENCE]
            for cookie in shown:
                if cookie.number not in known:
                    known[cookie.number] = _cookie_evidence(cookie, texts)
            evidence = [known[cookie.number] for cookie in shown]
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
    label = texts["evidence.cookie"].format(  # by itself: no number is in it for ``say`` to write
        name=cookie.name or texts["evidence.no_name"],
        domain=cookie.domain or texts["evidence.no_domain"],
    )
    return Evidence(label=cut(label, MAX_LABEL_BYTES), cookie_number=cookie.number)


def _storage_evidence(key: StorageKey, texts: Language) -> Evidence:
    label = texts.say("evidence.storage", area=key.area, key=key.key)
    return Evidence(label=cut(label, MAX_LABEL_BYTES))
