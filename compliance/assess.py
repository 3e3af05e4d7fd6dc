"""Judgement: a scan, and the one before it, become a Report.

The stop between a recorded scan and the renderers.  ``assess`` is a pure
function: no clock, no I/O, the same inputs give the same Report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from compliance.drift import compare
from compliance.exemptions import reason_exemptions
from compliance.falls import NOTHING_BETWEEN, Since
from compliance.figures import count_consent, count_lifetimes, list_third_parties, sum_up
from compliance.inventory import StringBound, list_cookies, list_storage_keys
from compliance.judging import judge
from compliance.limits import Shown, find_limits
from compliance.rules import RulePack
from compliance.score import compute_score
from languages.language import load_language
from schemas.reports import (
    SCHEMA_VERSION,
    Drift,
    HistoryPoint,
    Identity,
    InventoryCookie,
    Report,
    canonical_digest,
)
from schemas.scans import Scan

MAX_PAGES = 200
"""Visited pages a report lists."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a scan a report shows.  ``max_cookies`` bounds storage keys too."""

    max_cookies: int
    max_string_bytes: int


def assess(
    scan: Scan,
    *,
    scan_sha256: str,
    pack: RulePack,
    previous: Scan | None = None,
    since: Since = NOTHING_BETWEEN,
    history: Sequence[HistoryPoint] = (),
    language: str = "en",
    bounds: Bounds,
) -> Report:
    """Judge ``scan`` by ``pack`` and say everything there is to say about it.

    ``previous`` is the scan of the same domain to compare with, ``since`` what came
    between the two, ``history`` the domain's earlier scores, oldest first.  Accepts
    every scan that decodes; linear in cookies but for one sort.  Deterministic, safe
    to repeat.  Raises InvalidSettings for a language without a catalogue.
    """
    texts = load_language(language)
    bound = StringBound(bounds.max_string_bytes)
    sent = scan.cookies or ()
    storage_sent = list_storage_keys(scan.storages, bound)
    storages = storage_sent[: bounds.max_cookies]
    cookies, findings = judge(
        pack, list_cookies(sent[: bounds.max_cookies], bound), storages, texts
    )
    identity = _identity(scan, scan_sha256, pack, bound)
    limits = find_limits(
        scan,
        Shown(
            cookies=cookies,
            cookies_sent=len(sent),
            storage_shown=len(storages),
            storage_sent=len(storage_sent),
            pages_shown=len(identity.pages),
            pages_sent=len(scan.pages_visited or ()),
            status=identity.scan_status,
            error=bound.optional(scan.error),
            strings_cut=bound.cuts,
            max_string_bytes=bounds.max_string_bytes,
        ),
        previous,
        since,
        texts,
    )
    inconclusive = any(limit.inconclusive for limit in limits)
    report = Report(
        schema_version=SCHEMA_VERSION,
        language=language,
        identity=identity,
        inconclusive=inconclusive,
        score=compute_score(findings, inconclusive=inconclusive, formula=texts["score.formula"]),
        totals=sum_up(cookies, len(storages), findings),
        consent=count_consent(cookies),
        cookies=tuple(cookies),
        storages=tuple(storages),
        exemptions=reason_exemptions(cookies, texts),
        lifetimes=count_lifetimes(cookies, texts),
        third_parties=list_third_parties(cookies),
        findings=tuple(findings),
        drift=_drift(previous, since, cookies, bounds),
        history=tuple(history),
        limits=limits,
    )
    return msgspec.structs.replace(report, content_sha256=canonical_digest(report))


def _identity(scan: Scan, scan_sha256: str, pack: RulePack, bound: StringBound) -> Identity:
    return Identity(
        scan_id=str(scan.scan_id),
        domain=scan.domain,
        scan_mode=bound.optional(scan.scan_mode),
        scan_status=bound.optional(scan.status),
        finished_at=scan.finished_at,
        duration_seconds=scan.duration_seconds,
        page_count=scan.page_count,
        pages=tuple(bound(page) for page in (scan.pages_visited or ())[:MAX_PAGES]),
        scan_sha256=scan_sha256,
        rule_pack=pack.id,
        rule_pack_version=pack.version,
    )


def _drift(
    previous: Scan | None, since: Since, cookies: Sequence[InventoryCookie], bounds: Bounds
) -> Drift:
    if previous is None:
        return Drift(
            compared_with=None,
            compared_finished_at=None,
            skipped=0,
            added=(),
            removed=(),
            changed=(),
        )
    before = list_cookies(
        (previous.cookies or ())[: bounds.max_cookies], StringBound(bounds.max_string_bytes)
    )
    drift = compare(before, cookies)
    return Drift(
        compared_with=str(previous.scan_id),
        compared_finished_at=previous.finished_at,
        skipped=since.skipped,
        added=drift.added,
        removed=drift.removed,
        changed=drift.changed,
    )
