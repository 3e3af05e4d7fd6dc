"""How a report reads on a page: labels by language, and values as words.

Shared by the pages that people read (PDF, HTML), so that both say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

from schemas.reports import InventoryCookie, Report, ScoreTerm

Words: TypeAlias = Mapping[str, str]

MAX_CHANGES = 500
"""Added, removed or changed cookies a page lists; the JSON report lists all."""

MAX_HISTORY = 24
"""Earlier scores a page lists, the newest ones."""

ENGLISH: Words = {
    "report": "Cookie scan report",
    "scan": "Scan",
    "finished": "finished",
    "score": "Score",
    "of_100": "of 100",
    "held": "held",
    "inconclusive": "Inconclusive",
    "inconclusive_text": "This scan is not sound enough to be scored. The findings below are what "
    "it did show.",
    "page": "Page",
    "of": "of",
    "none": "None.",
    "not_stated": "not stated",
    "empty_name": "(empty name)",
    "yes": "yes",
    "no": "no",
    "dash": "–",
    "before": "before",
    "after": "after",
    "unknown": "unknown",
    "total": "Total",
    "cookies": "Cookies",
    "third_party_cookies": "Third-party",
    "before_consent": "Before consent",
    "session_cookies": "Session",
    "storage_keys": "Storage keys",
    "findings": "Findings",
    "notice": "This report shows findings, the evidence for them and the rule each rests on. It is "
    "no legal advice and no statement that a site meets or breaks the law.",
    "chart": "Cookies by category and moment of consent",
    "legend_before": "before consent",
    "legend_after": "after consent",
    "legend_unknown": "not stated",
    "severity": "Severity",
    "severity.high": "High",
    "severity.medium": "Medium",
    "severity.low": "Low",
    "severity.info": "Info",
    "category": "Category",
    "category.necessary": "Necessary",
    "category.functional": "Functional",
    "category.analytics": "Analytics",
    "category.advertising": "Advertising",
    "category.unclassified": "Unclassified",
    "party": "Party",
    "party.first": "first",
    "party.third": "third",
    "party.unknown": "unknown",
    "verdict.plausible": "plausible",
    "verdict.questionable": "questionable",
    "finding": "Finding",
    "count": "Count",
    "no_findings": "No rule of this pack found anything in this scan.",
    "action": "What to do",
    "rests_on": "Rule",
    "scope": "Scope",
    "evidence": "Evidence",
    "more_evidence": "and {count:,} more; the inventory names the findings of every cookie",
    "section.identity": "Identity and method",
    "section.verdict": "Verdict",
    "section.consent": "Consent",
    "section.inventory": "Cookie inventory",
    "section.storages": "Local and session storage",
    "section.exemptions": "Exemption reasoning",
    "section.lifetimes": "Lifetimes",
    "section.third_parties": "Third parties",
    "section.findings": "Findings and actions",
    "section.drift": "Changes since the scan before",
    "section.history": "Score history",
    "section.limits": "Limits of this report",
    "section.score": "How the score is made",
    "intro.consent": "Cookies by category and by whether they were there before the visitor chose "
    "(Directive 2002/58/EC, Art. 5(3)).",
    "intro.inventory": "Every cookie of the scan. The last column gives the numbers of the "
    "findings that name the cookie. – means that the scanner did not say.",
    "intro.storages": "Keys only; values are never shown (EDPB Guidelines 2/2023).",
    "intro.exemptions": "Cookies declared necessary, seen with WP29 Opinion 04/2012. Plausible "
    "means that nothing observed speaks against the exemption; it is no confirmation.",
    "intro.lifetimes": "How long the cookies live. CNIL recommends at most 13 months for exempt "
    "audience measurement; that is no EU-wide cap.",
    "intro.third_parties": "Domains of third-party cookies, most cookies first.",
    "drift.first": "There is no earlier scan of this domain to compare with.",
    "drift.compared": "Compared with scan {scan}, finished {finished}.",
    "drift.added": "New cookies",
    "drift.removed": "Removed cookies",
    "drift.changed": "Changed cookies",
    "drift.none": "No cookie was added, removed or changed.",
    "drift.more": "and {count:,} more; the JSON report lists all",
    "history.none": "There are no earlier scores of this domain.",
    "limits.none": "No limits are known.",
    "name": "Name",
    "domain": "Domain",
    "path": "Path",
    "domain_path": "Domain and path",
    "purpose": "Purpose",
    "vendor": "Vendor",
    "vendors": "Vendors",
    "lifetime": "Lifetime",
    "size": "Size",
    "flags": "Secure · HttpOnly · SameSite",
    "secure": "Secure",
    "http_only": "HttpOnly",
    "same_site": "SameSite",
    "set": "Set",
    "classified": "Classified by",
    "confidence": "confidence",
    "needs_review": "needs review",
    "iab": "IAB",
    "session": "Session",
    "area": "Area",
    "key": "Key",
    "characters": "Characters",
    "assessment": "Assessment",
    "reason": "Reason",
    "field": "Property",
    "was": "Was",
    "is": "Is",
    "field.category": "category",
    "field.duration": "lifetime",
    "field.party": "party",
    "field.secure": "Secure",
    "field.http_only": "HttpOnly",
    "field.same_site": "SameSite",
    "holds_score": "holds the score",
    "scan_id": "Scan id",
    "scan_mode": "Scan mode",
    "scan_status": "Scanner's status",
    "finished_at": "Finished at",
    "duration": "Duration",
    "pages_count": "Pages",
    "pages": "Pages visited",
    "rule_pack": "Rule pack",
    "schema_version": "Report schema",
    "scan_sha256": "SHA-256 of the scan result",
    "content_sha256": "SHA-256 of this report's content",
    "formula": "Formula",
    "points": "Points",
    "filter": "Filter cookies",
    "shown": "shown",
    "sort_hint": "Select a column title to sort.",
    "verdict.findings": "{findings} on {cookies}.",
    "verdict.findings_high": "{findings} on {cookies}, {high} of high severity.",
    "verdict.before": "Set before a choice: {cookies}.",
    "verdict.before_none": "No cookie is known to have been set before a choice.",
    "plural.finding": "{count:,} findings",
    "plural.finding.one": "1 finding",
    "plural.cookie": "{count:,} cookies",
    "plural.cookie.one": "1 cookie",
}

CATALOGUES: Mapping[str, Words] = {"en": ENGLISH}


def words(language: str) -> Words:
    """The labels of ``language``; English where there are none."""
    return CATALOGUES.get(language, ENGLISH)


def plural(noun: str, count: int, t: Words) -> str:
    """``count`` with its noun."""
    return t[f"plural.{noun}.one"] if count == 1 else t[f"plural.{noun}"].format(count=count)


def verdict_line(report: Report, t: Words) -> str:
    """Page one in a sentence or two: findings, and what was set before a choice."""
    high = report.totals.severities[0].count
    parts = [
        t["verdict.findings_high" if high else "verdict.findings"].format(
            findings=plural("finding", len(report.findings), t),
            cookies=plural("cookie", report.totals.cookies, t),
            high=high,
        )
    ]
    before = report.totals.before_consent
    if before:
        parts.append(t["verdict.before"].format(cookies=plural("cookie", before, t)))
    elif report.totals.cookies:
        parts.append(t["verdict.before_none"])
    return " ".join(parts)


def moment(value: datetime | None, t: Words) -> str:
    """A time to the second, in the zone it has."""
    return t["not_stated"] if value is None else value.strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def tri(value: bool | None, t: Words) -> str:
    """Yes, no, or a dash where the source did not say."""
    return t["dash"] if value is None else t["yes"] if value else t["no"]


def consent_word(before: bool | None, t: Words) -> str:
    """When a cookie was set."""
    return t["dash"] if before is None else t["before"] if before else t["after"]


def number(value: float | None, t: Words) -> str:
    """A number of any size in few characters."""
    if value is None:
        return t["dash"]
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def classification(cookie: InventoryCookie, t: Words) -> list[str]:
    """How the category was found, one fact each."""
    facts = [cookie.classified_by or t["dash"]]
    if cookie.ml_confidence is not None:
        facts.append(f"{t['confidence']} {cookie.ml_confidence:.3g}")
    if cookie.iab_purposes:
        facts.append(f"{t['iab']} {', '.join(cookie.iab_purposes)}")
    if cookie.needs_review:
        facts.append(t["needs_review"])
    return facts


def category_lines(cookie: InventoryCookie, t: Words) -> list[str]:
    """The category, and the scanner's own word where it differs."""
    ours = t[f"category.{cookie.category}"]
    sent = cookie.category_sent
    return [ours] if sent is None or sent.lower() == cookie.category else [ours, f"“{sent}”"]


def identity_rows(report: Report, t: Words) -> list[tuple[str, str]]:
    """Which scan this is and how it was made, label by label."""
    identity = report.identity
    stated = t["not_stated"]
    seconds = identity.duration_seconds
    return [
        (t["domain"], identity.domain),
        (t["scan_id"], identity.scan_id),
        (t["scan_mode"], identity.scan_mode or stated),
        (t["scan_status"], identity.scan_status or stated),
        (t["finished_at"], moment(identity.finished_at, t)),
        (t["duration"], stated if seconds is None else f"{seconds:.6g} s"),
        (t["pages_count"], stated if identity.page_count is None else f"{identity.page_count:,}"),
        (t["rule_pack"], f"{identity.rule_pack} {identity.rule_pack_version}"),
        (t["schema_version"], report.schema_version),
        (t["scan_sha256"], identity.scan_sha256),
        (t["content_sha256"], report.content_sha256),
    ]


def finding_numbers(report: Report) -> dict[str, int]:
    """Findings are numbered from 1, worst first; the inventory refers to them."""
    return {finding.rule_id: place for place, finding in enumerate(report.findings, 1)}


def points(term: ScoreTerm) -> str:
    """What a finding took off."""
    return f"−{term.points:.2f}" if term.points else "0"
