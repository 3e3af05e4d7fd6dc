"""Judges recorded scans again, by another pack: what changed by law, and what by the site.

Read-only.  Whatever a report is made of is what it is made of here (the scan's
own bytes, the scan before, the frozen inputs); only the pack differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from compliance.assess import Bounds, assess
from compliance.comparison import Comparison
from compliance.rejudge import LawChange, SiteChange, compare_judgements, compare_scans
from compliance.rules import RulePack, load_frozen_pack
from schemas.errors import InvalidSettings, PermanentError
from schemas.reports import Report
from schemas.runs import FrozenInputs
from schemas.scans import Scan, decode_scan
from schemas.settings import Settings
from store.ledger import Ledger
from store.recorded_scans import RecordedScan, Selection, read_scan, walk_scans
from tasks.comparing import frozen_comparison, frozen_events

log = structlog.get_logger("tasks.rejudge")


@dataclass(frozen=True, slots=True)
class Rejudged:
    """One scan under the pack that judged it and under the new one.

    ``site`` is there where it was asked for and the scan before is.
    """

    scan: RecordedScan
    judged_by: str
    law: LawChange
    site: SiteChange | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A scan that cannot be judged by both packs, and why."""

    scan: RecordedScan
    reason: str


class _Unjudgeable(Exception):
    """Ends the look at one scan, never the walk.  Its text is the reason."""


_Material: TypeAlias = tuple[RecordedScan, FrozenInputs, Scan, Comparison]
"""A recorded scan, decoded, with the scan that it is compared with."""


def rejudge(
    ledger: Ledger, settings: Settings, pack: RulePack, selection: Selection, *, by_site: bool
) -> Iterator[Rejudged | Skipped]:
    """Judge each selected scan by ``pack`` beside its own; ``by_site`` compares scans, too.

    Lazy: holds one scan at a time.  Raises LedgerUnavailable.
    """
    bounds = Bounds(settings.max_cookies, settings.max_string_bytes)
    for scan in walk_scans(ledger, selection):
        try:
            material = _decode(ledger, scan, bounds)
            own = _own_pack(material, settings)
            now = _judge(material, pack, bounds)
            law = compare_judgements(now if own == pack else _judge(material, own, bounds), now)
        except _Unjudgeable as error:
            yield Skipped(scan, str(error))
        else:
            site = _site_change(ledger, material, now, pack, bounds) if by_site else None
            yield Rejudged(scan, own.name, law, site)


def _decode(ledger: Ledger, scan: RecordedScan, bounds: Bounds) -> _Material:
    if scan.data is None:
        raise _Unjudgeable("its data has been deleted")
    if scan.inputs is None:
        raise _Unjudgeable("no run ever asked for its report")
    try:
        decoded = decode_scan(scan.data)
    except PermanentError as error:
        raise _Unjudgeable("its data cannot be decoded by this release") from error
    try:
        compared = frozen_comparison(
            ledger, scan.inputs, scan.finished_at, max_cookies=bounds.max_cookies
        )
    except PermanentError as error:
        raise _Unjudgeable(str(error)) from error
    return scan, scan.inputs, decoded, compared


def _site_change(
    ledger: Ledger, material: _Material, now: Report, pack: RulePack, bounds: Bounds
) -> SiteChange | None:
    """What it is compared with beside this scan, under one pack; None where that cannot be."""
    scan, inputs, _, compared = material
    if compared.previous is None:
        return None
    scan_id = str(compared.previous.scan_id)
    event_pk = next(
        item.event_pk for item in frozen_events(inputs, scan.finished_at) if item.scan_id == scan_id
    )
    # read whole, for its own scan before: a fall between those two holds its score
    before = read_scan(ledger, scan_id, event_pk)
    if before is None:
        return None
    try:
        return compare_scans(_judge(_decode(ledger, before, bounds), pack, bounds), now)
    except _Unjudgeable as error:
        log.info("scan_before_not_judged", scan_id=before.scan_id, reason=str(error))
        return None


def _own_pack(material: _Material, settings: Settings) -> RulePack:
    name = material[1].rule_pack
    try:
        return load_frozen_pack(name, material[1].rule_pack_sha256, settings.rule_packs_dir)
    except InvalidSettings as error:
        raise _Unjudgeable(f"it was judged by {name}: {error}") from error


def _judge(material: _Material, pack: RulePack, bounds: Bounds) -> Report:
    scan, inputs, decoded, compared = material
    try:
        return assess(
            decoded,
            scan_sha256=scan.data_sha256,
            pack=pack,
            previous=compared.previous,
            since=compared.since,
            history=inputs.history,
            language=inputs.language,
            bounds=bounds,
        )
    except PermanentError as error:
        raise _Unjudgeable(f"it cannot be judged: {error}") from error
    except Exception as error:  # a scan that breaks our judgement must not end the walk
        log.exception("assess_crashed", scan_id=scan.scan_id)
        raise _Unjudgeable(f"it cannot be judged: {type(error).__name__}") from error
