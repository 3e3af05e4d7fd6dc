"""A report rendered again looks and reads as it did when its run was recorded."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete

from cli import processes
from compliance.rules import PACKS, load_pack, pack_digest
from renderers.registry import RENDERERS, Renderer
from schemas.errors import InvalidSettings
from schemas.presentation import Presentation, encode_presentation
from schemas.reports import Format, Report
from schemas.runs import Run, RunTicket
from store import runs, tables
from tasks import generate_report_async, reports
from tasks.fetch import fetch_data
from tasks.on_demand import render_on_demand
from tasks.reports import assessed_report, render_formats
from tasks.wiring import Wiring


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """No presentation is known from another test, and HTML shows all of it."""

    def show(_: Report, presentation: Presentation) -> bytes:
        return encode_presentation(presentation)

    monkeypatch.setattr(reports, "_presentations", OrderedDict())
    monkeypatch.setitem(RENDERERS, Format.HTML, Renderer(show, "text/html", ".html"))


@pytest.fixture
def brand(tmp_path: Path) -> Callable[[str], Path]:
    """A brand file of this organisation; the same file each time."""

    def brand(organisation: str) -> Path:
        path = tmp_path / "brand.toml"
        path.write_text(f'organisation = "{organisation}"\n')
        return path

    return brand


def scan_id(data: bytes) -> str:
    return str(json.loads(data)["scan_id"])


def load(parts: Wiring, ticket: RunTicket) -> Run:
    with parts.ledger.read() as connection:
        return runs.load_run(connection, ticket.run_id)


def html_of(rows: Any, parts: Wiring, scan: bytes) -> Any:
    return next(
        row
        for row in rows(parts, "reports")
        if (row["scan_id"], row["format"]) == (scan_id(scan), "html")
    )


def test_a_run_looks_as_when_it_was_recorded_after_the_brand_changed(
    make_parts: Any, brand: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(branding=brand("First"), formats=("html",))
    ticket = record(parts, make_scan(1))
    render_formats(parts, ticket.run_id, ticket.formats)
    before = html_of(rows, parts, make_scan(1))
    first = Path(before["uri"]).read_bytes()
    assert b'"organisation":"First"' in first

    restarted = make_parts(branding=brand("Second"), formats=("html",))
    reports._presentations.clear()
    again = generate_report_async.apply((scan_id(make_scan(1)), "html")).get()
    assert Path(again["file_path"]).read_bytes() == first
    assert html_of(rows, restarted, make_scan(1))["sha256"] == before["sha256"]

    later = record(restarted, make_scan(2))
    render_formats(restarted, later.run_id, later.formats)
    second = Path(html_of(rows, restarted, make_scan(2))["uri"]).read_bytes()
    assert b'"organisation":"Second"' in second


def test_a_changed_brand_file_counts_from_the_next_start_of_the_process(
    make_parts: Any, brand: Any, record: Any, make_scan: Any
) -> None:
    parts = make_parts(branding=brand("First"))
    before = load(parts, record(parts, make_scan(1)))
    path = brand("Second")
    unchanged = load(parts, record(parts, make_scan(2)))
    changed = load(parts, record(make_parts(branding=path), make_scan(3)))
    assert before.inputs.presentation == unchanged.inputs.presentation
    assert changed.inputs.presentation not in (None, before.inputs.presentation)


def test_a_renderer_needs_no_brand_file_of_its_own(
    make_parts: Any, brand: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    ticket = record(make_parts(branding=brand("First")), make_scan())
    elsewhere = make_parts()
    render_formats(elsewhere, ticket.run_id, [Format.HTML])
    row = html_of(rows, elsewhere, make_scan())
    assert b'"organisation":"First"' in Path(row["uri"]).read_bytes()


def test_two_looks_of_one_scan_never_share_an_artifact(
    make_parts: Any, brand: Any, record: Any, make_scan: Any
) -> None:
    """The same content again in another event, as a replay makes it."""
    keys = []
    for name in ("", "A", "B"):
        parts = make_parts(**({"branding": brand(name)} if name else {}))
        run = load(parts, record(parts, make_scan(), id=f"event {name}"))
        keys.append(reports.artifact_key(run, str(run.scan_id), Format.PDF))
    assert len(set(keys)) == 3
    assert all(key.startswith(f"{run.scan_id}/") for key in keys)
    assert all(key.endswith("/report.en.pdf") for key in keys)


def test_a_scan_judged_by_another_pack_never_shares_an_artifact(
    make_parts: Any, own_packs: Any, record: Any, make_scan: Any
) -> None:
    """A slow run of the first event must not write under what the second has made."""
    keys = []
    for version in ("1", "2"):
        parts = make_parts(rule_packs_dir=own_packs("acme", "1", "2"), rule_pack=f"acme-{version}")
        run = load(parts, record(parts, make_scan(), id=f"event {version}"))
        keys += [reports.artifact_key(run, str(run.scan_id), name) for name in Format]
    assert len(set(keys)) == 2 * len(Format)


def test_a_pack_that_was_edited_judges_nothing_that_it_judged_before(
    make_parts: Any, own_packs: Any, record: Any, make_scan: Any
) -> None:
    folder = own_packs("acme", "1")
    parts = make_parts(rule_packs_dir=folder, rule_pack="acme")
    run = load(parts, record(parts, make_scan()))
    assert reports.assessed_report(parts, run).identity.rule_pack == "acme"
    path = folder / "acme-1.json"
    path.write_bytes(path.read_bytes().replace(b"Cookies without", b"Cookies with no"))
    forget_packs()
    reports._assessed.clear()
    with pytest.raises(InvalidSettings, match="acme-1 was edited after it had judged scans"):
        reports.assessed_report(parts, run)


@pytest.fixture
def own_packs(tmp_path: Path) -> Any:
    """A folder of packs of the operator's own: the shipped one under other names."""

    def write(name: str, *versions: str) -> Path:
        folder = tmp_path / "packs"
        folder.mkdir(exist_ok=True)
        shipped = msgspec.json.decode(next(PACKS.glob("eu-baseline-*.json")).read_bytes())
        for version in versions:
            pack = {**shipped, "id": name, "version": version}
            (folder / f"{name}-{version}.json").write_bytes(msgspec.json.encode(pack))
        return folder

    yield write
    forget_packs()


def forget_packs() -> None:
    """As another process, which has read none yet."""
    load_pack.cache_clear()
    pack_digest.cache_clear()


def test_a_report_that_is_known_in_one_language_is_made_anew_in_another(
    parts: Wiring, record: Any, make_scan: Any
) -> None:
    run = load(parts, record(parts, make_scan()))
    other = render_on_demand(parts, scan_id(make_scan()), [Format.JSON], "de").run
    made = [assessed_report(parts, one) for one in (run, other, run)]
    assert [report.language for report in made] == ["en", "de", "en"]


def test_a_look_that_the_ledger_has_lost_fails_the_formats_with_a_reason(
    make_parts: Any, brand: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(branding=brand("First"))
    ticket = record(parts, make_scan())
    with parts.ledger.write() as connection:
        connection.execute(delete(tables.presentations))
    assert render_formats(parts, ticket.run_id, [Format.CSV]) == {"csv": "failed"}
    assert "no presentation" in rows(parts, "reports")[0]["error"]


def test_few_presentations_stay_in_memory(
    make_parts: Any, brand: Any, record: Any, make_scan: Any
) -> None:
    for number in range(reports.PRESENTATIONS_KEPT + 3):
        parts = make_parts(branding=brand(f"Brand {number}"))
        ticket = record(parts, make_scan(number))
        render_formats(parts, ticket.run_id, [Format.CSV])
    assert len(reports._presentations) == reports.PRESENTATIONS_KEPT


def test_the_byte_order_mark_is_a_setting_and_frozen_as_well(
    make_parts: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    ticket = record(make_parts(csv_bom=True), make_scan())
    parts = make_parts()
    render_formats(parts, ticket.run_id, [Format.CSV])
    assert Path(rows(parts, "reports")[0]["uri"]).read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_run_speaks_the_language_of_its_domain(
    make_parts: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(domain_languages="*.example=de, *=en", formats=("json",))
    ticket = record(parts, make_scan(domain="shop.example"))
    render_formats(parts, ticket.run_id, ticket.formats)
    (row,) = rows(parts, "reports")
    assert (row["language"], row["artifact_key"].rpartition("/")[2]) == (
        "de",
        "report.de.json",
    )
    assert json.loads(Path(row["uri"]).read_bytes())["language"] == "de"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"language": "tlh"}, "SCANHERALD_LANGUAGE: language 'tlh' has no catalogue; known: "),
        ({"domain_languages": "*.de=xx"}, "SCANHERALD_DOMAIN_LANGUAGES: language 'xx' has no"),
        ({"language": "en.UTF-8/../x"}, "SCANHERALD_LANGUAGE: "),
        ({"rule_pack": "nope"}, "rule pack 'nope' is not known"),
        ({"branding": "gone.toml"}, "SCANHERALD_BRANDING: cannot read gone.toml"),
    ],
)
def test_what_no_run_could_be_made_with_is_refused_at_the_start(
    make_parts: Any, settings: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        _ = make_parts(**settings).run_defaults
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["*.de", "=de", "*.de=", "*.de=de,fr"])
def test_a_languages_glob_without_a_language_is_refused_by_its_place(
    make_parts: Any, value: str
) -> None:
    with pytest.raises(InvalidSettings, match=r"SCANHERALD_DOMAIN_LANGUAGES item \d: .*\*\.de=de"):
        make_parts(domain_languages=value)


def test_neither_listener_nor_worker_starts_with_a_brand_file_that_cannot_be_used(
    make_parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_parts(branding="gone.toml")
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)
    monkeypatch.setattr("tasks.wiring.use", lambda _: None)
    monkeypatch.setattr(sys.modules["tasks.app"], "publish_only", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for start in (
        lambda: processes.run_listener(parts.settings),
        lambda: processes.run_worker(parts.settings, processes.WorkerOptions()),
    ):
        with pytest.raises(InvalidSettings, match="SCANHERALD_BRANDING"):
            start()


def test_a_brand_file_that_a_fetching_worker_cannot_read_leaves_the_run_to_the_sweep(
    make_parts: Any, tmp_path: Path, record: Any, make_scan: Any, rows: Any, brand: Any
) -> None:
    (tmp_path / "scan.json").write_bytes(make_scan())
    ticket = record(make_parts(), dataref=(tmp_path / "scan.json").as_uri())
    broken = make_parts(branding="gone.toml", dataref_file_roots=(tmp_path,))
    fetch_data.apply((ticket.run_id, 1)).get()
    (run,) = rows(broken, "runs")
    assert (run["state"], run["scan_id"]) == ("recorded", None)
    assert "SCANHERALD_BRANDING" in run["last_error"]
    assert rows(broken, "events")[0]["outcome"] == "pending"
