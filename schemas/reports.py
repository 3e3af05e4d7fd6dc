"""The Report: everything we say about one scan, in no particular format.

``compliance`` makes it, every renderer takes it, and the JSON report is this
model as it stands.  It is a pure function of a run's frozen inputs, holds no
clock and no randomness, and every string in it is already bounded; it is still
hostile (cookie names come from the web) and each renderer escapes at its border.
A report never says "compliant" or "illegal": it shows findings, evidence and
the rule with its source.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum

import msgspec

SCHEMA_VERSION = "1.0"


class Severity(StrEnum):
    """How much a finding weighs, least first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for info up to 3 for high."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


class Category(StrEnum):
    """The five purposes that every scanner's words are mapped to."""

    NECESSARY = "necessary"
    FUNCTIONAL = "functional"
    ANALYTICS = "analytics"
    ADVERTISING = "advertising"
    UNCLASSIFIED = "unclassified"


class Party(StrEnum):
    """Who set a cookie, seen from the visited site."""

    FIRST = "first"
    THIRD = "third"
    UNKNOWN = "unknown"


# None can lead back to itself, so the garbage collector need not look at any.
class _Model(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of all parts: immutable, keyword-only."""


class Identity(_Model, frozen=True):
    """Which scan this is, and how it was made."""

    scan_id: str
    domain: str
    scan_mode: str | None
    scan_status: str | None
    finished_at: datetime | None
    duration_seconds: float | None
    page_count: int | None
    pages: tuple[str, ...]
    """At most the first 200 pages."""
    scan_sha256: str
    """Digest of the scan result's original bytes."""
    rule_pack: str
    rule_pack_version: str


class InventoryCookie(_Model, frozen=True):
    """One cookie of the inventory; ``number`` counts from 1 in the scanner's order."""

    number: int
    name: str
    domain: str
    path: str
    party: Party
    category: Category
    category_sent: str | None
    """The scanner's own word for the category."""
    purpose: str | None
    vendor: str | None
    duration: str | None
    """As sent, for a reader."""
    duration_seconds: int | None
    """None for session cookies and where it could not be read."""
    is_session: bool
    size_bytes: int | None
    secure: bool | None
    http_only: bool | None
    same_site: str | None
    before_consent: bool | None
    """True: there before the visitor chose.  None: the source did not say."""
    iab_purposes: tuple[str, ...]
    classified_by: str | None
    ml_confidence: float | None
    needs_review: bool
    rule_ids: tuple[str, ...]
    """Rules whose findings name this cookie."""


class StorageKey(_Model, frozen=True):
    """One key in the browser's web storage; the value is never shown."""

    area: str
    """``localStorage`` or ``sessionStorage``."""
    key: str
    value_size: int
    """Characters of the value's text."""


class Evidence(_Model, frozen=True):
    """One piece of evidence of a finding: a cookie by number, or a storage key."""

    label: str
    cookie_number: int | None = None


class Finding(_Model, frozen=True):
    """One rule's verdict on its evidence."""

    rule_id: str
    severity: Severity
    title: str
    explanation: str
    action: str
    """What to do about it."""
    source: str
    """The text the rule rests on."""
    source_url: str | None
    scope: str | None
    """Where the rule applies and where it does not."""
    count: int
    """How many pieces of evidence there are."""
    evidence: tuple[Evidence, ...]
    """At most the first 100; the inventory's ``rule_ids`` hold all."""


class ScoreTerm(_Model, frozen=True):
    """What one finding took off the score."""

    rule_id: str
    severity: Severity
    count: int
    points: float


class Score(_Model, frozen=True):
    """0 to 100.  ``value`` is None where the scan is inconclusive: the score is held."""

    value: int | None
    formula: str
    terms: tuple[ScoreTerm, ...]


class Count(_Model, frozen=True):
    """A labelled number; used for categories, parties, vendors, domains."""

    label: str
    count: int


class ConsentCount(_Model, frozen=True):
    """Cookies of one category by when they were set."""

    category: Category
    before: int
    after: int
    unknown: int


class Totals(_Model, frozen=True):
    """The figures of the first page."""

    cookies: int
    storage_keys: int
    first_party: int
    third_party: int
    unknown_party: int
    before_consent: int
    session: int
    categories: tuple[Count, ...]
    """Every category of ``Category``, in its order."""
    severities: tuple[Count, ...]
    """Findings by severity, high first."""


class ThirdParty(_Model, frozen=True):
    """A third-party domain with what it set."""

    domain: str
    vendors: tuple[str, ...]
    cookies: int


class Exemption(_Model, frozen=True):
    """Reasoning on one cookie that is declared necessary."""

    cookie_number: int
    name: str
    verdict: str
    """``plausible`` or ``questionable``."""
    reason: str


class Lifetime(_Model, frozen=True):
    """How many cookies live that long."""

    label: str
    count: int


class CookieRef(_Model, frozen=True):
    """Names a cookie across scans: name, domain and path."""

    name: str
    domain: str
    path: str


class CookieChange(_Model, frozen=True):
    """One property of a cookie that differs from the scan before."""

    cookie: CookieRef
    field: str
    before: str
    after: str


class Drift(_Model, frozen=True):
    """What changed since the last scan that can be trusted; None in ``compared_with``: the first.

    Where no earlier scan can be trusted, it is the one before.
    """

    compared_with: str | None
    compared_finished_at: datetime | None
    skipped: int
    """Scans between the two that were passed over, because they were inconclusive."""
    added: tuple[CookieRef, ...]
    removed: tuple[CookieRef, ...]
    changed: tuple[CookieChange, ...]


class HistoryPoint(_Model, frozen=True):
    """An earlier score of the same domain."""

    scan_id: str
    finished_at: datetime
    score: int | None


class Limit(_Model, frozen=True):
    """Something that keeps this report from being the whole truth."""

    code: str
    text: str
    inconclusive: bool
    """True: the score is held because of it."""


class Report(_Model, frozen=True):
    """Everything we say of one scan, in one language."""

    schema_version: str
    language: str
    identity: Identity
    inconclusive: bool
    score: Score
    totals: Totals
    consent: tuple[ConsentCount, ...]
    cookies: tuple[InventoryCookie, ...]
    storages: tuple[StorageKey, ...]
    exemptions: tuple[Exemption, ...]
    lifetimes: tuple[Lifetime, ...]
    third_parties: tuple[ThirdParty, ...]
    findings: tuple[Finding, ...]
    """Worst first."""
    drift: Drift
    history: tuple[HistoryPoint, ...]
    """Oldest first, this scan not included."""
    limits: tuple[Limit, ...]
    content_sha256: str = ""
    """Digest of the canonical JSON of all the above; see ``canonical_digest``."""


_encoder = msgspec.json.Encoder(order="deterministic")


def canonical_digest(report: Report) -> str:
    """SHA-256 (hex) of the report's canonical JSON with an empty ``content_sha256``."""
    return hashlib.sha256(
        _encoder.encode(msgspec.structs.replace(report, content_sha256=""))
    ).hexdigest()


class Format(StrEnum):
    """The artifacts of a scan."""

    PDF = "pdf"
    HTML = "html"
    JSON = "json"
    CSV = "csv"
    XLSX = "xlsx"


DEFAULT_FORMATS = (Format.PDF, Format.HTML, Format.JSON, Format.CSV)
"""What every scan gets unless settings say otherwise; a workbook costs as much as the four."""
