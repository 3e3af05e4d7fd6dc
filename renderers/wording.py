"""How a report reads on a page: its values as words of its language.

Shared by the formats that people read (PDF, HTML, XLSX), so that all say the same.
"""

from __future__ import annotations

from datetime import datetime

from languages.language import Language
from schemas.reports import Category, CookieChange, Report, ScoreTerm

MAX_CHANGES = 500
"""Added, removed or changed cookies a page lists; the JSON report lists all."""

MAX_HISTORY = 24
"""Earlier scores a page lists, the newest ones."""


def verdict_line(report: Report, t: Language) -> str:
    """Page one in a sentence or two: findings, and what was set before a choice."""
    high = report.totals.severities[0].count
    parts = [
        t.say(
            "verdict.findings_high" if high else "verdict.findings",
            findings=t.plural("finding", len(report.findings)),
            cookies=t.plural("cookie", report.totals.cookies),
            high=high,
        )
    ]
    before = report.totals.before_consent
    if before:
        parts.append(t.say("verdict.before", cookies=t.plural("cookie", before)))
    elif report.totals.cookies:
        parts.append(t["verdict.before_none"])
    return " ".join(parts)


def moment(value: datetime | None, t: Language) -> str:
    """A time to the second."""
    return t["not_stated"] if value is None else t.moment(value)


def tri(value: bool | None, t: Language) -> str:
    """Yes, no, or a dash where the source did not say."""
    return t["dash"] if value is None else t["yes"] if value else t["no"]


def consent_word(before: bool | None, t: Language) -> str:
    """When a cookie was set."""
    return t["dash"] if before is None else t["before"] if before else t["after"]


def number(value: float | None, t: Language) -> str:
    """A number of any size in few characters."""
    return t["dash"] if value is None else t.number(value)


def classification(
    classified_by: str | None,
    confidence: float | None,
    iab_purposes: tuple[str, ...],
    needs_review: bool,
    t: Language,
) -> tuple[str, ...]:
    """How a category was found, one fact each."""
    facts = [classified_by or t["dash"]]
    if confidence is not None:
        facts.append(f"{t['confidence']} {t.number(float(f'{confidence:.3g}'))}")
    if iab_purposes:
        facts.append(f"{t['iab']} {', '.join(iab_purposes)}")
    if needs_review:
        facts.append(t["needs_review"])
    return tuple(facts)


def category_lines(category: Category, sent: str | None, t: Language) -> tuple[str, ...]:
    """The category, and the scanner's own word where it differs."""
    ours = t[f"category.{category}"]
    if sent is None or sent.lower() == category:
        return (ours,)
    return ours, t.say("quoted", text=sent)


def change_values(change: CookieChange, t: Language) -> tuple[str, str]:
    """What a property was and is; empty where the source did not say."""
    return _property(change.field, change.before, t), _property(change.field, change.after, t)


def _property(field: str, value: str, t: Language) -> str:
    # The report keeps our own words for machines; other properties are the scanner's texts.
    match field:
        case "category":
            return t[f"category.{value}"]
        case "party":
            return t[f"party.{value}"]
        case "secure" | "http_only" if value:
            return t["yes"] if value == "yes" else t["no"]
        case _:
            return value


def identity_rows(report: Report, t: Language) -> list[tuple[str, str]]:
    """Which scan this is and how it was made, label by label."""
    identity = report.identity
    stated = t["not_stated"]
    seconds, pages = identity.duration_seconds, identity.page_count
    return [
        (t["domain"], identity.domain),
        (t["scan_id"], identity.scan_id),
        (t["scan_mode"], identity.scan_mode or stated),
        (t["scan_status"], identity.scan_status or stated),
        (t["finished_at"], moment(identity.finished_at, t)),
        (t["duration"], stated if seconds is None else f"{t.number(seconds)} s"),
        (t["pages_count"], stated if pages is None else t.number(pages)),
        (t["rule_pack"], f"{identity.rule_pack} {identity.rule_pack_version}"),
        (t["schema_version"], report.schema_version),
        (t["scan_sha256"], identity.scan_sha256),
        (t["content_sha256"], report.content_sha256),
    ]


def title_line(report: Report, t: Language) -> str:
    """What this document is, and of which domain."""
    return t.say("labelled", label=t["report"], value=report.identity.domain)


def finding_numbers(report: Report) -> dict[str, int]:
    """Findings are numbered from 1, worst first; the inventory refers to them."""
    return {finding.rule_id: place for place, finding in enumerate(report.findings, 1)}


def points(term: ScoreTerm, t: Language) -> str:
    """What a finding took off."""
    return f"−{t.decimal(term.points, 2)}" if term.points else "0"
