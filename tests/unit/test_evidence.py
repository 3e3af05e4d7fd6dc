"""Gathering the evidence on a scan: what is stored as it is, what is missing rendered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, update

from schemas.bundles import BUNDLE_REPORTS
from schemas.errors import InvalidBundle, InvalidEvent, InvalidSettings, NotFound, TransientError
from schemas.reports import Format, Report, canonical_digest
from store import tables
from store.bundles import Bundle, content_digest, verify_bundle
from store.plain_zip import read_entries
from store.runs import settle_dead
from store.signing_keys import SigningKey
from tasks import evidence, reports
from tasks.evidence import make_bundle
from tasks.on_demand import render_on_demand
from tasks.reports import render_formats

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(b"k" * 32))


@pytest.fixture
def scan(make_scan: Any) -> bytes:
    data: bytes = make_scan(comment="kept, though no struct knows it")
    return data


@pytest.fixture
def scan_id(scan: bytes) -> str:
    return str(msgspec.json.decode(scan)["scan_id"])


@pytest.fixture
def recorded(parts: Any, record: Any, scan: bytes) -> Any:
    """The ticket of a scan that is recorded and not rendered."""
    return record(parts, scan)


@pytest.fixture
def rendered(parts: Any, recorded: Any) -> dict[str, bytes]:
    """What the run of the scan put into the store, by format."""
    render_formats(parts, recorded.run_id, recorded.formats)
    with parts.ledger.read() as connection:
        rows = connection.execute(tables.reports.select()).mappings().all()
    return {row["format"]: parts.artifacts.get(row["artifact_key"]) for row in rows}


def files_of(bundle: Bundle) -> dict[str, bytes]:
    assert verify_bundle(bundle.data, KEY.public).manifest == bundle.manifest
    return read_entries(bundle.data, at_most=9)


def test_a_bundle_holds_the_scans_bytes_exactly_as_received(
    parts: Any, recorded: Any, scan: bytes, scan_id: str
) -> None:
    files = files_of(make_bundle(parts, scan_id, KEY))
    assert files["scan.json"] == scan
    report = msgspec.json.decode(files["report.json"], type=Report)
    assert report.identity.scan_sha256 == hashlib.sha256(scan).hexdigest()


def test_the_digest_of_the_bytes_is_that_of_the_report(
    parts: Any, recorded: Any, scan_id: str
) -> None:
    data = files_of(make_bundle(parts, scan_id, KEY))["report.json"]
    report = msgspec.json.decode(data, type=Report)
    assert content_digest(data) == report.content_sha256 == canonical_digest(report)


def test_what_is_stored_is_taken_and_what_is_missing_is_rendered(
    parts: Any, rendered: dict[str, bytes], scan_id: str, rows: Any
) -> None:
    assert set(rendered) == {"pdf", "html", "json", "csv"}
    files = files_of(make_bundle(parts, scan_id, KEY))
    for name, data in rendered.items():
        assert files[f"report.{name}"] == data
    assert files["report.xlsx"].startswith(b"PK")
    assert {row["format"] for row in rows(parts, "reports")} == set(Format)


def test_the_same_scan_gives_the_same_bytes_before_and_after_its_run(
    parts: Any, recorded: Any, scan_id: str
) -> None:
    before = make_bundle(parts, scan_id, KEY)
    assert make_bundle(parts, f" {scan_id.upper()}", KEY) == before
    render_formats(parts, recorded.run_id, recorded.formats)
    assert make_bundle(parts, scan_id, KEY) == before


def test_nothing_is_rendered_where_everything_is_stored(
    parts: Any, recorded: Any, scan_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_bundle(parts, scan_id, KEY)
    monkeypatch.delattr(evidence, "render_on_demand")
    assert make_bundle(parts, scan_id, KEY) == before


def test_a_bundle_in_another_language_leaves_the_runs_reports_alone(
    parts: Any, rendered: dict[str, bytes], scan_id: str
) -> None:
    bundle = make_bundle(parts, scan_id, KEY, "de")
    assert bundle.manifest.language == "de"
    assert files_of(bundle)["report.html"] != rendered["html"]
    assert files_of(make_bundle(parts, scan_id, KEY))["report.html"] == rendered["html"]


@pytest.mark.parametrize(
    "damage", [lambda store, key: store.put(key, b"forged"), lambda store, key: store.delete(key)]
)
def test_an_artifact_that_is_not_the_recorded_one_is_rendered_anew_and_told(
    parts: Any, rendered: dict[str, bytes], scan_id: str, damage: Callable[..., None], rows: Any
) -> None:
    (key,) = [row["artifact_key"] for row in rows(parts, "reports") if row["format"] == "html"]
    damage(parts.artifacts, key)
    with structlog.testing.capture_logs() as logs:
        files = files_of(make_bundle(parts, scan_id, KEY))
    assert files["report.html"] == rendered["html"]
    (said,) = [line for line in logs if line["event"] == "artifact_not_as_recorded"]
    assert (said["format"], said["log_level"]) == ("html", "warning")


def test_without_a_stored_json_report_all_are_rendered(
    parts: Any, rendered: dict[str, bytes], scan_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with parts.ledger.write() as connection:
        connection.execute(delete(tables.reports).where(tables.reports.c.format == "json"))
    asked: list[list[Format]] = []

    def render(parts: Any, scan_id: str, formats: list[Format], language: str) -> Any:
        asked.append(formats)
        return render_on_demand(parts, scan_id, formats, language)

    monkeypatch.setattr(evidence, "render_on_demand", render)
    assert files_of(make_bundle(parts, scan_id, KEY))["report.pdf"] == rendered["pdf"]
    assert asked == [list(BUNDLE_REPORTS)]


def test_reports_of_two_judgements_are_not_mixed(
    parts: Any, rendered: dict[str, bytes], scan_id: str, rows: Any
) -> None:
    """As after a new release: the stored JSON is whole, and says something else."""
    (row,) = [row for row in rows(parts, "reports") if row["format"] == "json"]
    other = rendered["json"].replace(b"shop.example", b"ship.example")
    parts.artifacts.put(row["artifact_key"], other)
    with parts.ledger.write() as connection:
        connection.execute(
            update(tables.reports)
            .where(tables.reports.c.format == "json")
            .values(sha256=hashlib.sha256(other).hexdigest(), content_sha256=content_digest(other))
        )
    with pytest.raises(InvalidBundle, match="--language en --format pdf --format html") as said:
        make_bundle(parts, scan_id, KEY)
    assert f"scanherald render {scan_id}" in str(said.value)


def test_a_stored_report_of_another_judgement_is_rendered_anew_though_none_is_missing(
    parts: Any, make_parts: Any, rendered: dict[str, bytes], scan_id: str
) -> None:
    """All five are there, and two of them were rendered with other bounds in between."""
    render_on_demand(parts, scan_id, [Format.XLSX])
    narrow = make_parts(max_cookies=1)
    reports._assessed.clear()  # as another process, with its own settings, would have none
    changed = render_on_demand(narrow, scan_id, [Format.PDF, Format.HTML])
    reports._assessed.clear()
    assert parts.artifacts.get(changed.made[0].artifact_key) != rendered["pdf"]
    files = files_of(make_bundle(parts, scan_id, KEY))
    assert files["report.pdf"] == rendered["pdf"]
    assert files["report.html"] == rendered["html"]
    assert files["report.json"] == rendered["json"]


def test_reports_of_an_earlier_run_are_not_taken_for_those_of_the_newest(
    parts: Any, rendered: dict[str, bytes], scan_id: str
) -> None:
    with parts.ledger.write() as connection:
        connection.execute(update(tables.reports).values(run_id="of-another-run", size_bytes=1))
    assert files_of(make_bundle(parts, scan_id, KEY))["report.csv"] == rendered["csv"]


def test_a_scan_that_came_again_meanwhile_is_worth_another_try(
    parts: Any,
    recorded: Any,
    record: Any,
    make_scan: Any,
    scan_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def render(parts: Any, *arguments: Any) -> Any:
        parts.clock.forward(1)
        record(parts, make_scan(domain="other.example"), id="again", source="here")
        return render_on_demand(parts, *arguments)

    monkeypatch.setattr(evidence, "render_on_demand", render)
    with pytest.raises(TransientError, match="came again just now"):
        make_bundle(parts, scan_id, KEY)


def test_an_unknown_scan_is_named(parts: Any) -> None:
    with pytest.raises(NotFound, match="no scan nowhere in the ledger"):
        make_bundle(parts, "nowhere", KEY)


def test_an_unknown_language_is_refused(parts: Any, recorded: Any, scan_id: str) -> None:
    with pytest.raises(InvalidSettings, match="tlh"):
        make_bundle(parts, scan_id, KEY, "tlh")


def test_a_dead_runs_scan_is_refused_with_what_to_do(
    parts: Any, recorded: Any, scan_id: str
) -> None:
    with parts.ledger.write() as connection:
        settle_dead(connection, recorded.run_id, "its disk was full", parts.clock())
    with pytest.raises(InvalidEvent, match=f"scanherald runs retry {recorded.run_id}"):
        make_bundle(parts, scan_id, KEY)


def test_a_scan_whose_data_is_not_there_is_refused(parts: Any, recorded: Any, scan_id: str) -> None:
    with parts.ledger.write() as connection:
        connection.execute(update(tables.events).values(payload=None, payload_size=0))
    with pytest.raises(InvalidEvent, match="has not been fetched yet"):
        make_bundle(parts, scan_id, KEY)
