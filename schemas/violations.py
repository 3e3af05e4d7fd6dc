"""A violation: one rule that found something serious on one domain, from its start to its end.

The ledger keeps one per domain and rule, however many scans find it; a new
``occurrence`` begins when it is found again after its end.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from schemas.reports import Severity


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What the last scan that found it said of it, and what it takes to say that it is gone."""

    rule_id: str
    severity: Severity
    title: str
    """The rule pack's own, in English."""
    count: int
    """Pieces of evidence."""
    scan_id: str
    rule_pack: str
    rule_pack_version: str
    """The newest of its pack that has found it in this occurrence."""
    wide: bool
    """Whether in this occurrence a scan has found it that looked at more than a quick one does."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One rule on one domain.

    Seen, resolved and first seen are times of scans, as they finished; told is the
    time by our clock.
    """

    domain: str
    occurrence: int
    """Counts from 1; rises when it comes back after its end."""
    sighting: Sighting
    first_seen_at: datetime
    """In this occurrence."""
    last_seen_at: datetime
    last_told_at: datetime
    reminders: int = 0
    """Of this occurrence."""
    resolved_at: datetime | None = None

    @property
    def fingerprint(self) -> str:
        """Its identity, the same in every scan: 64 hex digits of domain and rule."""
        return fingerprint_of(self.domain, self.sighting.rule_id)


def fingerprint_of(domain: str, rule_id: str) -> str:
    """SHA-256 of domain and rule; neither can hold the line break between them."""
    return hashlib.sha256(f"{domain}\n{rule_id}".encode()).hexdigest()
