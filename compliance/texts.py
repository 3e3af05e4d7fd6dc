"""What judgement says in words, by language: limits, exemption reasons, lifetime labels.

The texts of rules live in the rule packs.  A placeholder is filled with
``str.format``; the values are numbers or bounded strings.
"""

from __future__ import annotations

from collections.abc import Mapping

ENGLISH: Mapping[str, str] = {
    "limit.scan_status": "The scanner ended with the status “{status}”, not with success.",
    "limit.scan_error": "The scanner reported an error: {error}",
    "limit.no_pages": "No page was visited, so nothing could be observed.",
    "limit.empty_scan": "The scan holds no pages, no cookies and no storage keys.",
    "limit.nothing_found": "No cookie and no storage key was found. Check that the pages loaded "
    "and that the scanner was not blocked.",
    "limit.pages_fell": "{now:,} pages were visited, {before:,} in the scan before: fewer than "
    "half. The scanner may have been blocked.",
    "limit.cookies_fell": "{now:,} cookies were found, {before:,} in the scan before: fewer than "
    "half. The scanner may have been blocked.",
    "limit.cookies_cut": "The scan holds {sent:,} cookies; the first {shown:,} are judged and "
    "shown.",
    "limit.storage_cut": "The scan holds {sent:,} storage keys; the first {shown:,} are shown.",
    "limit.pages_cut": "{sent:,} pages were listed by the scanner; the first {shown:,} are shown.",
    "limit.strings_cut": "{count:,} values were longer than {limit:,} bytes; they are cut and "
    "marked.",
    "limit.consent_unknown": "For {count:,} of {total:,} cookies the scanner did not say whether "
    "they were set before or after consent.",
    "limit.flags_unknown": "For {count:,} of {total:,} cookies the scanner did not report Secure "
    "or HttpOnly; rules on these flags cannot judge them.",
    "limit.storage_moment": "The scanner does not say when storage keys were written, before or "
    "after consent.",
    "exemption.third_party": "set by a third party; exempt cookies are as a rule first-party",
    "exemption.long_life": "lives longer than 13 months; the lifetime has to match the purpose",
    "exemption.no_purpose": "no purpose is stated, so necessity cannot be followed",
    "exemption.plausible": "nothing the scan observed speaks against it: not third-party, purpose "
    "stated, lifetime not above 13 months",
    "lifetime.session": "Session",
    "lifetime.day": "Up to 1 day",
    "lifetime.month": "Up to 30 days",
    "lifetime.half_year": "Up to 6 months",
    "lifetime.thirteen": "Up to 13 months",
    "lifetime.twenty_four": "Up to 24 months",
    "lifetime.longer": "Over 24 months",
    "lifetime.unknown": "Not stated or not readable",
    "score.formula": "100 − Σ weight × count ÷ (count + 5), at least 0; "
    "weights: high 30, medium 15, low 5, info 0",
    "evidence.cookie": "{name} ({domain})",
    "evidence.no_name": "(empty name)",
    "evidence.no_domain": "domain not stated",
    "evidence.storage": "{area}: {key}",
}

CATALOGUES: Mapping[str, Mapping[str, str]] = {"en": ENGLISH}


def catalogue(language: str) -> Mapping[str, str]:
    """The texts of ``language``; English where there is none."""
    return CATALOGUES.get(language, ENGLISH)
