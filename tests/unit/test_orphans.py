"""Artifacts that no report names, and reports whose artifact is gone: found and mended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ArtifactsUnavailable
from tasks import orphans
from tasks.cleanup import Limits, clean_reports
from tasks.erase import Receipt, erase_domain
from tasks.finish import settle
from tasks.on_demand import generate_report_async
from tasks.orphans import clean_orphans, sweep_orphans
from tasks.reports import render_formats
from tests.bucket import Bucket

HOUR, DAY = 3600, 86_400
NOTHING = {"artifacts": 0, "lost": 0, "found": 0, "foreign": 0}


@pytest.fixture
def light(make_parts: Any) -> Any:
    return make_parts(formats=("csv", "json"), keep_newest_scans=0)


@pytest.fixture
def report(light: Any, record: Any, make_scan: Any, rows: Any, clock: Any) -> Callable[..., Any]:
    """Report a scan now; returns the paths that its reports name."""

    def report(number: int = 1, **fields: Any) -> list[Path]:
        ticket = record(light, make_scan(number, **fields), id=light.new_id())
        known = {row["uri"] for row in rows(light, "reports")}
        render_formats(light, ticket.run_id, ticket.formats)
        settle(light, ticket.run_id, 1)
        made = [Path(row["uri"]) for row in rows(light, "reports") if row["uri"] not in known]
        for path in made:
            put_at(path, clock().timestamp())
        return made

    return report


def put_at(path: Path, moment: float) -> None:
    os.utime(path, (moment, moment))


def strange(light: Any, moment: float, name: str = "report.en.csv") -> Path:
    """An artifact of a scan that the ledger does not know."""
    folder = light.artifacts.folder / "0b7b9f1e-0000-4000-8000-000000000001"
    path: Path = folder / "0123456789ab-0123456789ab" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12345")
    put_at(path, moment)
    return path


def test_an_artifact_that_no_report_names_goes_after_a_day_and_a_named_one_stays(
    light: Any, report: Any, clock: Any
) -> None:
    named = report()
    old = strange(light, clock().timestamp() - 25 * HOUR)
    young = strange(light, clock().timestamp() - 23 * HOUR, "report.en.pdf")
    expected = clean_orphans(light, Limits(dry_run=True))
    assert old.exists()
    cleaned = clean_orphans(light)
    assert cleaned.counts == expected.counts == {**NOTHING, "artifacts": 1}
    assert cleaned.size == expected.size == 5
    assert [path.exists() for path in (old, young, *named)] == [False, True, True, True]
    assert clean_orphans(light).counts == NOTHING


def test_what_is_not_named_as_ours_is_somebody_elses(light: Any, report: Any, clock: Any) -> None:
    report()
    folder = light.artifacts.folder
    others = [
        folder / "README.txt",
        folder / "0b7b9f1e-0000-4000-8000-000000000001" / "notes.pdf",
        folder / "not-a-scan" / "0123456789ab-0123456789ab" / "report.en.csv",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        put_at(path, 0)
    assert clean_orphans(light).counts == {**NOTHING, "foreign": 3}
    assert all(path.exists() for path in others)


def test_what_yesterdays_messages_link_lives_as_long_as_reports_do(
    light: Any, report: Any, rows: Any, clock: Any
) -> None:
    first = report(1)
    again = report(1, page_count=3)  # the same scan came again with other content
    assert set(first).isdisjoint(again)
    clock.forward(29 * DAY)
    assert clean_orphans(light).counts == NOTHING
    clock.forward(2 * DAY)
    assert clean_orphans(light).counts == {**NOTHING, "artifacts": 2}
    assert [path.exists() for path in first + again] == [False, False, True, True]


def test_a_report_whose_artifact_is_gone_says_so_and_can_be_asked_for_again(
    light: Any, report: Any, rows: Any
) -> None:
    gone, there = report()
    gone.unlink()
    assert clean_orphans(light, Limits(dry_run=True)).counts["lost"] == 1
    assert {row["status"] for row in rows(light, "reports")} == {"ready"}
    assert clean_orphans(light).counts == {**NOTHING, "lost": 1}
    statuses = {row["uri"]: (row["status"], row["error"]) for row in rows(light, "reports")}
    assert statuses[str(there)] == ("ready", None)
    assert statuses[str(gone)][0] == "expired"
    assert statuses[str(gone)][1].startswith("its artifact was not in the store on 2026-03-04")
    assert clean_orphans(light).counts == NOTHING

    row = next(row for row in rows(light, "reports") if row["uri"] == str(gone))
    made = generate_report_async.apply((row["scan_id"], row["format"])).get()
    assert Path(made["file_path"]) == gone
    assert clean_orphans(light).counts == NOTHING
    assert {row["status"] for row in rows(light, "reports")} == {"ready"}


def test_an_artifact_that_is_there_again_makes_its_report_ready_again(
    light: Any, report: Any, rows: Any, tmp_path: Path, clock: Any
) -> None:
    gone, _ = report()
    aside = gone.rename(tmp_path / "aside")
    clean_orphans(light)
    aside.rename(gone)
    clock.forward(40 * DAY)
    assert clean_orphans(light).counts == {**NOTHING, "found": 1}
    assert {row["status"] for row in rows(light, "reports")} == {"ready"}


def test_an_empty_store_that_was_mounted_by_mistake_costs_nothing(
    light: Any, report: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "FEW", 3)
    files = [path for number in (1, 2) for path in report(number)]
    for path in files:
        path.unlink()
    with pytest.raises(ArtifactsUnavailable, match="is ARTIFACTS_URL the right one"):
        clean_orphans(light)
    assert {row["status"] for row in rows(light, "reports")} == {"ready"}
    assert clean_orphans(light, all_lost=True).counts["lost"] == 4


def test_the_nightly_look_goes_on_where_its_time_was_out(
    light: Any, report: Any, rows: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "BATCH", 1)
    for path in report():
        path.unlink()
    look = light.artifacts.is_there

    def slow(key: str) -> bool:
        clock.forward(100)
        return bool(look(key))

    monkeypatch.setattr(light.artifacts, "is_there", slow)
    nights = [sweep_orphans.apply().get() for _ in range(3)]
    assert [(night["status"], night["lost"]) for night in nights] == [
        ("partial", 1),
        ("partial", 1),
        ("completed", 0),
    ]
    assert {row["status"] for row in rows(light, "reports")} == {"expired"}


def test_the_list_of_the_store_is_read_page_by_page(
    light: Any, report: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from store import artifacts

    monkeypatch.setattr(artifacts, "LISTED", 2)
    for number in (1, 2, 3):
        report(number)
    pages = [len(page) for page in light.artifacts.list_all()]
    assert pages == [2, 2, 2]
    for number in range(5):
        strange(light, 0, f"report.en.{number}")
    assert clean_orphans(light).counts == {**NOTHING, "artifacts": 5}


# In a bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with Bucket() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        yield bucket


def test_a_bucket_is_searched_page_by_page_and_cleaned_in_bulk(
    bucket: Bucket, make_parts: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    parts = make_parts(
        formats=("csv", "json"), keep_newest_scans=0, artifacts_url="s3://reports/a/prefix"
    )
    for number in (1, 2):
        ticket = record(parts, make_scan(number))
        render_formats(parts, ticket.run_id, ticket.formats)
        settle(parts, ticket.run_id, 1)
    named = set(bucket.objects)
    assert len(named) == 4
    assert all(key.startswith("a/prefix/") for key in named)
    clock.now = datetime.now(UTC)  # the bucket has the real one
    orphan = "a/prefix/0b7b9f1e-0000-4000-8000-000000000001/0123456789ab-0123456789ab/report.en.csv"
    bucket.objects |= {
        orphan: (b"12345", clock() - timedelta(hours=25)),
        "a/prefix/notes.txt": (b"", clock() - timedelta(days=9)),
        "another/prefix/report": (b"", clock() - timedelta(days=9)),
    }
    (gone, *_) = sorted(named)
    del bucket.objects[gone]

    cleaned = clean_orphans(parts)
    assert cleaned.counts == {"artifacts": 1, "lost": 1, "found": 0, "foreign": 1}
    assert cleaned.size == 5
    assert bucket.lists == 2  # five objects below the prefix, three to a page
    assert set(bucket.objects) == named - {gone} | {"a/prefix/notes.txt", "another/prefix/report"}

    clock.forward(31 * DAY)
    assert clean_reports(parts, 30).counts == {"reports": 4}
    assert set(bucket.objects) == {"a/prefix/notes.txt", "another/prefix/report"}
    assert {row["artifact_key"] for row in rows(parts, "reports")} == {None}


def test_a_bucket_whose_domain_is_erased_keeps_only_the_others(
    bucket: Bucket, make_parts: Any, record: Any, make_scan: Any, clock: Any
) -> None:
    parts = make_parts(formats=("csv",), artifacts_url="s3://reports")
    for number, domain in ((1, "erased.example"), (2, "other.example")):
        ticket = record(parts, make_scan(number, domain=domain))
        render_formats(parts, ticket.run_id, ticket.formats)
        settle(parts, ticket.run_id, 1)
    receipt = Receipt(False, clock())
    erase_domain(parts, "erased.example", receipt)
    assert receipt.counts["artifacts"] == 1
    (left,) = bucket.objects
    assert left.startswith("00000000-0000-0000-0000-0000000a0002/")
