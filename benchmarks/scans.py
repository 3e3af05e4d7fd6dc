"""Synthetic scans of any size, made from the real ones in ``tests/data/scans``.

The same size and variant give the same Report on every machine.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from uuid import UUID

import msgspec

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from schemas.reports import HistoryPoint, Report
from schemas.scans import Cookie, Scan, Storages, decode_scan

SCANS = Path(__file__).parents[1] / "tests" / "data" / "scans"
FINISHED_AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
BOUNDS = Bounds(max_cookies=50_000, max_string_bytes=8192)
CHANGED = 0.02
"""Share of the cookies that are new since the scan before; as many are gone, as many changed."""
STORAGE_KEYS = 18
EARLIER_SCORES = 12


class Variant(StrEnum):
    """How the texts of a scan repeat."""

    REAL = "real"
    """Drawn from the real scans: names, domains, purposes repeat as they do there."""
    UNIQUE = "unique"
    """Every name, path and purpose occurs once: no memo helps."""


def make_report(count: int, variant: Variant = Variant.REAL, draw: int = 0) -> Report:
    """The Report of ``count`` cookies, with drift, history and storage keys.

    Another ``draw`` gives another one of the same kind.
    """
    chance = random.Random(f"{count} {variant} {draw}" if draw else f"{count} {variant}")
    gone = max(1, int(count * CHANGED))
    cookies = [_draw(chance, place, variant) for place in range(count + gone)]
    before = [
        msgspec.structs.replace(cookie, secure=not cookie.secure) if place < gone else cookie
        for place, cookie in enumerate(cookies[gone:])
    ]
    keys = {cookie.name: "x" * place for place, cookie in enumerate(cookies[:STORAGE_KEYS])}
    return assess(
        _scan(2, FINISHED_AT, cookies[:count], Storages(local_storage=keys)),
        scan_sha256="ab" * 32,
        pack=load_pack("eu-baseline"),
        previous=_scan(1, FINISHED_AT - timedelta(days=7), before),
        history=_history(chance),
        bounds=BOUNDS,
    )


def _draw(chance: random.Random, place: int, variant: Variant) -> Cookie:
    """What a cookie is, where it lives and how big it is, each from a real cookie."""
    what, where, size = (chance.choice(_real_cookies()) for _ in range(3))
    cookie = msgspec.structs.replace(what, domain=where.domain, path=where.path, size=size.size)
    if variant is Variant.REAL:
        return cookie
    mark = f"{chance.getrandbits(48):012x}{place:06d}"
    purpose = " ".join(f"{word}{mark[-3:]}" for word in (what.description or "").split())
    return msgspec.structs.replace(
        cookie,
        name=f"{cookie.name}_{mark}",
        path=f"{cookie.path or '/'}{mark}",
        description=f"{mark} {purpose}",
    )


@cache
def _real_cookies() -> tuple[Cookie, ...]:
    scans = (decode_scan(path.read_bytes()) for path in sorted(SCANS.glob("*.json")))
    return tuple(cookie for scan in scans for cookie in scan.cookies or ())


def _scan(
    number: int, finished_at: datetime, cookies: list[Cookie], storages: Storages | None = None
) -> Scan:
    return Scan(
        scan_id=UUID(int=number),
        domain="shop.example.org",
        scan_mode="deep",
        timestamp_utc=finished_at,
        status="success",
        duration_seconds=74.5,
        page_count=25,
        pages_visited=[f"https://shop.example.org/page/{page}" for page in range(25)],
        storages=storages,
        cookies=cookies,
    )


def _history(chance: random.Random) -> list[HistoryPoint]:
    return [
        HistoryPoint(
            scan_id=str(UUID(int=100 + weeks)),
            finished_at=FINISHED_AT - timedelta(weeks=weeks),
            score=chance.randint(30, 70),
        )
        for weeks in range(EARLIER_SCORES, 0, -1)
    ]
