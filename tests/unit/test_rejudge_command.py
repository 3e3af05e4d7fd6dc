"""``scanherald rejudge`` and ``scanherald rules`` on a ledger and on packs of the test."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from cli import main as front_door
from cli import rejudged
from cli.main import app
from compliance.rules import PACKS
from store import recorded_scans, tables
from tasks import rejudge as rejudging
from tasks import wiring


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """A folder with acme 2026.1, which is the shipped pack, and 2026.2, which differs."""
    folder = tmp_path / "packs"
    folder.mkdir()
    pack = json.loads((PACKS / "eu-baseline-2026.1.json").read_bytes())
    pack |= {"id": "acme", "title": "What ACME asks of its sites"}
    (folder / "acme-2026.1.json").write_text(json.dumps(pack))
    pack["version"] = "2026.2"
    pack["rules"] = [
        rule for rule in pack["rules"] if rule["id"] != "consent.advertising-before-choice"
    ]
    for rule in pack["rules"]:
        if rule["id"] == "consent.third-party-before-choice":
            rule["severity"] = "medium"
    (folder / "acme-2026.2.json").write_text(json.dumps(pack))
    return folder


@pytest.fixture
def light(
    make_parts: Callable[..., Any], clock: Any, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Parts whose ledger and packs the commands find by their environment."""
    parts = make_parts(rule_packs_dir=packs)
    monkeypatch.setattr(wiring, "utc_now", clock)
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("SCANHERALD_RULE_PACKS_DIR", str(packs))
    monkeypatch.setenv("COLUMNS", "200")
    return parts


@pytest.fixture
def run(light: Any) -> Callable[..., str]:
    """Run a command that succeeds; returns what it printed."""

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    return run


@pytest.fixture
def fail(
    light: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the console script on something that fails; returns status and both outputs."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def fail(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scanherald", *arguments])
        with pytest.raises(SystemExit) as caught:
            front_door.main()
        said = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, said.out, said.err

    return fail


@pytest.fixture
def shops(light: Any, record: Any, make_scan: Any) -> None:
    """Two scans of one shop, the later with one cookie more; one of another, which is clean."""
    cookies = json.loads(make_scan())["cookies"]
    record(light, make_scan(1, cookies=cookies[1:]))
    record(light, make_scan(2))
    record(light, make_scan(3, domain="clean.example", cookies=[]))


def test_the_change_by_law_is_told_by_rule_by_domain_and_in_short(
    run: Callable[..., str], shops: None
) -> None:
    said = run("rejudge", "--pack", "acme")
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line}
    assert rows["rule"] == ["appeared", "vanished", "severity", "count", "evidence"]
    assert rows["consent.advertising-before-choice"] == ["-", "1", "-", "-", "-"]
    assert rows["consent.third-party-before-choice"] == ["-", "-", "1", "-", "-"]
    assert rows["shop.example"] == ["1", "1", "89", "→", "96", "+7.0"]
    assert "clean.example" not in said
    assert said.splitlines()[-1] == (
        "2 scans, the latest of each domain, judged again by acme-2026.2: 1 with other findings, "
        "1 with another score; mean change +3.5 points."
    )


def test_details_set_the_law_beside_the_site(run: Callable[..., str], shops: None) -> None:
    said = run("rejudge", "--pack", "acme", "--details")
    lines = {line.split()[0]: line for line in said.splitlines()[:8] if line}
    assert "by law: eu-baseline-2026.1 → acme-2026.2" in lines["by"]
    assert "by site: the scan before → this one, acme-2026.2" in lines["by"]
    assert lines["score"].split()[1:] == ["89", "→", "96", "99", "→", "96"]
    assert lines["consent.advertising-before-choice"].split()[1:] == [
        "vanished:",
        "high,",
        "1",
        "-",
    ]
    assert lines["consent.third-party-before-choice"].split()[1:] == [
        *("high", "→", "medium"),
        *("appeared:", "medium,", "1"),
    ]
    assert lines["transparency.incomplete-description"].split()[1:] == ["-", "1", "→", "2"]


def test_every_scan_is_judged_where_asked(run: Callable[..., str], shops: None) -> None:
    said = run("rejudge", "--pack", "acme", "--all-scans", "--details", "--domain", "shop.*")
    assert "no scan before to judge" not in said, "the first scan does not change"
    assert said.splitlines()[-1].startswith("2 scans judged again by acme-2026.2: 1 with other")


def test_a_pack_that_changes_nothing_says_so(run: Callable[..., str], shops: None) -> None:
    said = run("rejudge", "--pack", "acme-2026.1", "--details")
    assert said.splitlines()[-1].endswith("judged again by acme-2026.1: nothing changes.")
    assert "by law:" not in said.splitlines()[-1]
    said = run("rejudge", "--pack", "acme", "--domain", "gone.example")
    assert said.startswith("No recorded scan is selected: widen --since")


def test_the_document_for_scripts_has_every_scan_and_every_domain(
    run: Callable[..., str], shops: None
) -> None:
    found = json.loads(run("rejudge", "--pack", "acme", "--json", "--since", "7d"))
    assert list(found) == [
        *("pack", "since", "until", "domain", "all_scans"),
        *("totals", "rules", "skipped", "domains", "scans"),
    ]
    assert (found["pack"], found["since"]) == ("acme-2026.2", "2026-02-25T12:00:00Z")
    assert found["totals"] == {
        **{"scans": 2, "changed": 1, "rescored": 1, "scored": 2},
        **{"mean_points": 3.5, "skipped": 0},
    }
    assert [rule["rule_id"] for rule in found["rules"]] == [
        "consent.advertising-before-choice",
        "consent.third-party-before-choice",
    ]
    assert [domain["domain"] for domain in found["domains"]] == ["clean.example", "shop.example"]
    assert found["domains"][1]["rules"] == found["rules"]
    scan = found["scans"][1]
    assert (scan["judged_by"], scan["by_site"]) == ("eu-baseline-2026.1", None)
    assert scan["by_law"]["points"] == 7
    assert scan["by_law"]["findings"][0] == {
        "rule_id": "consent.advertising-before-choice",
        "kinds": ["vanished"],
        **{"severity_before": "high", "severity_after": None},
        **{"count_before": 1, "count_after": 0},
    }


def test_details_for_scripts_have_the_site_too(run: Callable[..., str], shops: None) -> None:
    found = json.loads(run("rejudge", "--pack", "acme", "--json", "--details", "--all-scans"))
    clean, first, second = found["scans"]
    assert clean["by_site"] is first["by_site"] is None
    assert second["by_site"]["points"] == -3
    shop = found["domains"][1]
    assert (shop["scans"], shop["changed"], shop["mean_points"]) == (2, 1, 3.5)


def test_an_empty_ledger_is_an_empty_answer(run: Callable[..., str]) -> None:
    found = json.loads(run("rejudge", "--pack", "acme", "--json"))
    assert (found["scans"], found["domains"], found["totals"]["mean_points"]) == ([], [], None)
    said = run("rejudge", "--pack", "acme", "--details")
    assert said.startswith("No recorded scan is selected")


def test_skipped_scans_are_counted_named_and_say_why(
    run: Callable[..., str], shops: None, light: Any
) -> None:
    with light.ledger.write() as connection:
        connection.execute(
            update(tables.events)
            .where(tables.events.c.subject == "shop.example")
            .values(payload=None)
        )
    said = run("rejudge", "--pack", "acme", "--all-scans").splitlines()
    assert said[-1].startswith("2 skipped, because its data has been deleted: 00000000-")
    document = json.loads(run("rejudge", "--pack", "acme", "--all-scans", "--json"))
    (reason,) = document["skipped"]
    assert (reason["reason"], reason["scans"]) == ("its data has been deleted", 2)
    assert len(reason["scan_ids"]) == document["totals"]["skipped"] == 2


def test_skipped_scans_beyond_those_named_are_counted(
    run: Callable[..., str], shops: None, light: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejudged, "SKIPPED_SHOWN", 1)
    with light.ledger.write() as connection:
        connection.execute(update(tables.events).values(payload=None))
    assert run("rejudge", "--pack", "acme").splitlines()[-1].startswith("2 skipped, ")
    assert run("rejudge", "--pack", "acme").endswith(", …\n")


@pytest.fixture
def interrupted(shops: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when the first scan has been judged and the second is due."""
    walk = recorded_scans.walk_scans

    def stopped(*arguments: Any) -> Iterator[Any]:
        yield next(walk(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(rejudging, "walk_scans", stopped)


@pytest.mark.parametrize("options", [(), ("--json",), ("--details",)], ids=" ".join)
def test_ctrl_c_ends_with_130_and_prints_nothing_that_looks_whole(
    fail: Callable[..., tuple[int, str, str]], interrupted: None, options: tuple[str, ...]
) -> None:
    status, out, err = fail("rejudge", "--pack", "acme", *options)
    assert (status, out) == (130, "")
    assert err == "stopped; scans looked at: 1. This is not the whole answer\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--pack", "emca"), "known packs: acme, acme-2026.1, acme-2026.2, eu-baseline"),
        (("--pack", "acme", "--since", "soon"), "--since 'soon' is neither a duration"),
        (("--pack", "acme", "--until", "soon"), "--until 'soon' is neither a duration"),
        (("--pack", "acme", "--since", "1d", "--until", "2d"), "--since '1d' is after --until"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_line(
    fail: Callable[..., tuple[int, str, str]], options: tuple[str, ...], words: str
) -> None:
    status, out, err = fail("rejudge", *options)
    assert (status, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_many_lines_wait_on_disk_and_none_is_lost(
    run: Callable[..., str],
    light: Any,
    record: Any,
    make_scan: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rejudged, "IN_MEMORY", 100)
    for number in range(1, 31):
        record(light, make_scan(number, domain=f"{number:02}.example"))
    found = json.loads(run("rejudge", "--pack", "acme", "--json"))
    names = [f"{number:02}.example" for number in range(1, 31)]
    assert [scan["domain"] for scan in found["scans"]] == names
    assert [domain["domain"] for domain in found["domains"]] == names
    table = run("rejudge", "--pack", "acme")
    assert sum(".example" in line for line in table.splitlines()) == rejudged.DOMAINS_SHOWN


def test_a_hostile_domain_does_not_drive_the_terminal(
    run: Callable[..., str], light: Any, record: Any, make_scan: Any
) -> None:
    record(light, make_scan(1, domain="[bold]x[/bold].:smile:"))
    assert "[bold]x[/bold].:smile:" in run("rejudge", "--pack", "acme", "--details")


# rules


def test_packs_are_listed_with_where_they_come_from_and_which_one_judges(
    run: Callable[..., str], packs: Path
) -> None:
    rows = {
        f"{row['pack']}-{row['version']}": row for row in json.loads(run("rules", "list", "--json"))
    }
    assert rows.keys() == {"acme-2026.1", "acme-2026.2", "eu-baseline-2026.1"}
    assert rows["acme-2026.2"]["from"] == str(packs)
    assert rows["acme-2026.2"]["rules"] == 12
    assert rows["eu-baseline-2026.1"]["from"] == "shipped"
    assert [name for name, row in rows.items() if row["judges"]] == ["eu-baseline-2026.1"]
    table = run("rules", "list")
    assert "new scans" in table
    assert "fault" not in table


def test_a_broken_pack_is_listed_with_its_fault_beside_the_others(
    run: Callable[..., str], packs: Path
) -> None:
    (packs / "acme-2026.3.json").write_text("{")
    rows = json.loads(run("rules", "list", "--json"))
    (broken,) = [row for row in rows if row.get("fault")]
    assert broken["pack"] == "acme-2026.3"
    assert "truncated" in broken["fault"]
    assert "truncated" in run("rules", "list")


def test_a_pack_is_shown_with_every_rule(run: Callable[..., str]) -> None:
    said = run("rules", "show", "acme")
    assert said.startswith("acme-2026.2: What ACME asks of its sites\n")
    assert "storage.keys-present" in said
    assert "consent.advertising-before-choice" not in said
    pack = json.loads(run("rules", "show", "eu-baseline", "--json"))
    assert pack == json.loads((PACKS / "eu-baseline-2026.1.json").read_bytes())


def test_showing_an_unknown_pack_lists_the_known_ones(
    fail: Callable[..., tuple[int, str, str]],
) -> None:
    status, _, err = fail("rules", "show", "emca")
    assert status == 1
    assert "known packs: acme, acme-2026.1" in err


def test_a_sound_file_is_called_so(run: Callable[..., str], packs: Path) -> None:
    path = packs / "acme-2026.1.json"
    assert run("rules", "check", str(path)) == f"{path}: sound\n"
    assert json.loads(run("rules", "check", str(path), "--json"))["faults"] == []


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_faulty_file_ends_in_status_1_with_each_fault_on_a_line(
    fail: Callable[..., tuple[int, str, str]], packs: Path, options: tuple[str, ...]
) -> None:
    path = packs / "acme-2026.1.json"
    pack = json.loads(path.read_text())
    pack["rules"][1]["severity"] = "[red]grave"
    pack["rules"][4]["titel"] = pack["rules"][4].pop("title")
    path.write_text(json.dumps(pack))
    status, out, err = fail("rules", "check", str(path), *options)
    assert (status, err) == (1, "")
    faults = json.loads(out)["faults"] if options else out.splitlines()
    assert len(faults) == 2
    assert faults[0].endswith("Invalid enum value '[red]grave' - at `$.rules[1].severity`")
    assert "`titel`" in faults[1] or "`title`" in faults[1]


def test_a_misnamed_file_and_an_unreadable_one_say_so(
    fail: Callable[..., tuple[int, str, str]], packs: Path
) -> None:
    path = (packs / "acme-2026.1.json").rename(packs / "draft.json")
    status, out, _ = fail("rules", "check", str(path))
    assert status == 1
    assert "its file must be named acme-2026.1.json" in out
    status, out, err = fail("rules", "check", str(packs / "gone.json"))
    assert (status, out) == (1, "")
    assert "No such file" in err
