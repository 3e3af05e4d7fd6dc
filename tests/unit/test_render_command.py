"""``scanherald render``: a recorded scan again, in any language, beside what is there."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli import main as front_door
from cli.main import app
from cli.render import file_name
from renderers.registry import RENDERERS, Renderer
from schemas.reports import Format
from store.runs import settle_dead
from tasks import cleanup_old_reports
from tasks.finish import settle
from tasks.reports import render_formats

SCAN = "00000000-0000-0000-0000-0000000a0001"


@pytest.fixture
def light(make_parts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Parts whose ledger the command finds by its environment; the process's logs stay as set."""
    parts = make_parts(formats=("csv", "json"), keep_newest_scans=0)
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)
    with capture_logs():
        yield parts


@pytest.fixture
def done(light: Any, record: Any, make_scan: Any) -> str:
    """A scan that has travelled the whole road; its run's id."""
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    settle(light, ticket.run_id, 1)
    return str(ticket.run_id)


@pytest.fixture
def run(light: Any) -> Callable[..., str]:
    """Run a command that succeeds; returns what it printed."""

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


@pytest.fixture
def fail(
    light: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the console script on something that cannot be done; returns its one line of error."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def fail(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["scanherald", *arguments])
        with pytest.raises(SystemExit) as caught:
            front_door.main()
        assert caught.value.code == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said

    return fail


def audit_is_clean(run: Callable[..., str]) -> bool:
    return run("audit", "--no-stream").endswith("clean\n")


def test_it_explains_itself_with_an_example(run: Any) -> None:
    said = " ".join(run("render", "--help").split())
    assert "Example: scanherald render " in said
    assert "--language de --format pdf --output copies" in said


def test_without_options_the_runs_formats_come_out_again_byte_for_byte(
    light: Any, done: str, run: Any, rows: Any
) -> None:
    before = {row["format"]: row["sha256"] for row in rows(light, "reports")}
    made = json.loads(run("render", SCAN, "--json"))
    assert {row["format"]: row["sha256"] for row in made} == before
    assert {row["language"] for row in made} == {"en"}
    assert len(rows(light, "reports")) == 2


def test_another_language_stands_beside_what_is_there(
    light: Any, done: str, run: Any, rows: Any
) -> None:
    before = {row["report_id"]: dict(row) for row in rows(light, "reports")}
    made = json.loads(
        run("render", SCAN, "--language", "de", "--format", "json", "--format", "csv", "--json")
    )
    after = {row["report_id"]: dict(row) for row in rows(light, "reports")}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"{SCAN}.de.csv", f"{SCAN}.de.json"}
    for row in made:
        data = Path(row["uri"]).read_bytes()
        assert (row["size_bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert row["file"] == row["uri"]
    assert json.loads(Path(made[0]["uri"]).read_bytes())["language"] == "de"


@pytest.mark.parametrize("name", list(Format))
def test_every_format_can_be_asked_for_and_the_audit_stays_clean(
    light: Any, done: str, run: Any, name: Format
) -> None:
    for language in ("en", "de"):
        (row,) = json.loads(
            run("render", SCAN, "--language", language, "--format", name.value, "--json")
        )
        assert (row["format"], row["language"]) == (name.value, language)
    assert audit_is_clean(run)


def test_the_table_shows_size_digest_and_file(done: str, run: Any, tmp_path: Path) -> None:
    said = run("render", SCAN, "--format", "csv", "--output", str(tmp_path / "copies"))
    path = tmp_path / "copies" / f"shop.example-{SCAN}.en.csv"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in said
    assert str(path) in said
    assert str(path.stat().st_size) in said


def test_reports_are_listed_with_their_language(done: str, run: Any) -> None:
    run("render", SCAN, "--language", "de", "--format", "csv")
    assert "de" in run("reports")


def test_nobody_is_told_and_the_run_stays_as_it_was(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any, run: Any
) -> None:
    subscribe(light)
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    settle(light, ticket.run_id, 1)
    before = (rows(light, "runs"), rows(light, "events"), rows(light, "deliveries"))
    run("render", SCAN, "--language", "de")
    assert (rows(light, "runs"), rows(light, "events"), rows(light, "deliveries")) == before


def test_an_unfinished_run_still_makes_its_own_reports(
    light: Any, record: Any, make_scan: Any, run: Any, rows: Any
) -> None:
    ticket = record(light, make_scan())
    run("render", SCAN, "--language", "de")
    statuses = render_formats(light, ticket.run_id, ticket.formats)
    assert statuses == {"csv": "ready", "json": "ready"}
    settle(light, ticket.run_id, 1)
    assert rows(light, "events")[0]["reason"].startswith("2 artifacts, 0 failed")
    assert audit_is_clean(run)


def test_reports_in_other_languages_are_cleaned_up_like_all_others(
    light: Any, done: str, run: Any, rows: Any, clock: Any
) -> None:
    run("render", SCAN, "--language", "de")
    clock.now = datetime.now(UTC) + timedelta(days=31)  # the command has the real clock
    assert cleanup_old_reports(30)["deleted_count"] == 4
    assert {row["status"] for row in rows(light, "reports")} == {"expired"}
    run("render", SCAN, "--language", "de")
    ready = [row["language"] for row in rows(light, "reports") if row["status"] == "ready"]
    assert ready == ["de", "de"]
    assert audit_is_clean(run)


def test_it_looks_as_it_was_recorded_whatever_the_brand_file_says_now(
    make_parts: Any,
    light: Any,
    record: Any,
    make_scan: Any,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(make_parts(csv_bom=True), make_scan())
    monkeypatch.setenv("SCANHERALD_BRANDING", "gone.toml")
    (row,) = json.loads(run("render", SCAN, "--format", "csv", "--json"))
    assert Path(row["uri"]).read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_format_that_fails_leaves_the_others_and_the_status_says_so(
    done: str, fail: Any, light: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> bytes:
        raise ZeroDivisionError("no page")

    monkeypatch.setitem(RENDERERS, Format.HTML, Renderer(broken, "text/html", ".html"))
    said = fail("render", SCAN, "--format", "html", "--format", "csv", "--language", "de")
    assert "html: " in said
    assert "no page" in said
    languages = {row["language"] for row in rows(light, "reports") if row["format"] == "csv"}
    assert languages == {"en", "de"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-scan",), "no scan no-such-scan in the ledger; publish its scan.completed"),
        ((SCAN, "--language", "tlh"), "language 'tlh' has no catalogue; known: "),
        ((SCAN, "--language", "en.UTF-8/../../x"), "has no catalogue; known: "),
        ((SCAN, "--language", "\x1b[2J"), "has no catalogue"),
    ],
)
def test_what_cannot_be_rendered_is_one_clear_line(
    done: str, fail: Any, arguments: tuple[str, ...], words: str
) -> None:
    said = fail("render", *arguments)
    assert words in said
    assert "\x1b" not in said


def test_a_scan_whose_data_never_came_is_named_with_its_end(
    light: Any, record: Any, fail: Any, clock: Any
) -> None:
    ticket = record(light, dataref="https://scans.example/1", subject="shop.example")
    with light.ledger.write() as connection:
        settle_dead(connection, ticket.run_id, "nobody answered", clock())
    assert "no scan " in fail("render", SCAN)


def test_a_dead_run_with_data_can_be_rendered_all_the_same(
    light: Any, record: Any, make_scan: Any, run: Any, clock: Any, rows: Any
) -> None:
    ticket = record(light, make_scan())
    with light.ledger.write() as connection:
        settle_dead(connection, ticket.run_id, "its disk was full", clock())
    assert len(json.loads(run("render", SCAN, "--json"))) == 2
    assert rows(light, "runs")[0]["state"] == "dead"
    assert audit_is_clean(run)


def test_an_unknown_format_is_refused_with_those_there_are(done: str) -> None:
    result = CliRunner().invoke(app, ["render", SCAN, "--format", "docx"])
    assert result.exit_code == 2
    assert "xlsx" in result.output


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    done: str, fail: Any, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_bytes(b"")
    said = fail("render", SCAN, "--output", str(tmp_path / "taken"))
    assert f"cannot write {tmp_path / 'taken'}" in said


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("Shop.Example", "shop.example-1.de.pdf"),
        ("../../etc/passwd", "_.._etc_passwd-1.de.pdf"),
        ("..", "scan-1.de.pdf"),
        ("-rf", "rf-1.de.pdf"),
        ("/", "_-1.de.pdf"),
        ("a\\b:c|d", "a_b_c_d-1.de.pdf"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example-1.de.pdf"),
        ("bücher\u202e.例え", "b_cher_._-1.de.pdf"),
        ("a" * 253, "a" * 100 + "-1.de.pdf"),
        ("", "scan-1.de.pdf"),
    ],
)
def test_a_copys_name_stays_in_its_folder(domain: str, name: str) -> None:
    assert file_name(domain, "1", "de", ".pdf") == name


def test_a_hostile_domain_writes_nowhere_else(
    light: Any, record: Any, make_scan: Any, run: Any, tmp_path: Path
) -> None:
    record(light, make_scan(domain="../../../escaped/\u202e\U0001f600"))
    folder = tmp_path / "a" / "b" / "copies"
    (row,) = json.loads(run("render", SCAN, "--format", "csv", "--output", str(folder), "--json"))
    assert [str(path) for path in (tmp_path / "a").rglob("*.csv")] == [row["file"]]
    assert Path(row["file"]).parent == folder
