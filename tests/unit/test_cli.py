"""The command line against a ledger on disk: tables, JSON, and errors a person can act on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import main as front_door
from cli.addresses import shortened
from cli.lazy import Stub
from cli.main import app
from cli.output import cell
from schemas.notifications import ChannelAddress, ChannelKind
from schemas.runs import DeadEntry, Entry
from store.events import record_dead
from store.ledger import Ledger
from store.runs import settle_dead
from store.subscribers import list_subscribers
from tasks import app as celery_app
from tasks import wiring
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats

COMMANDS = (
    ("demo",),
    ("up",),
    ("listen",),
    ("worker",),
    ("beat",),
    ("publish",),
    ("runs",),
    ("runs", "retry"),
    ("runs", "cancel"),
    ("reports",),
    ("render",),
    ("deliveries",),
    ("deliveries", "list"),
    ("deliveries", "show"),
    ("deliveries", "retry"),
    ("deliveries", "enable"),
    ("subscribers",),
    ("subscribers", "add"),
    ("subscribers", "list"),
    ("subscribers", "edit"),
    ("subscribers", "show"),
    ("subscribers", "remove"),
    ("subscribers", "import"),
    ("subscribers", "test"),
    ("subscribers", "pause"),
    ("subscribers", "resume"),
    ("subscribers", "rekey"),
    ("subscribers", "rotate-secret"),
    ("subscribers", "unsubscribe-token"),
    ("subscribers", "check-token"),
    ("why",),
    ("dead-letters",),
    ("dead-letters", "show"),
    ("audit",),
    ("cleanup",),
    ("erase",),
    ("metrics",),
    ("migrate",),
    ("top",),
    ("flower",),
    ("health",),
    ("stats",),
    ("tasks",),
    ("tasks", "active"),
    ("tasks", "registered"),
    ("tasks", "scheduled"),
    ("tasks", "status"),
    ("tasks", "revoke"),
    ("tasks", "purge"),
    ("bundle",),
    ("verify",),
    ("signing-key",),
    ("rejudge",),
    ("violations",),
    ("rules",),
    ("rules", "list"),
    ("rules", "show"),
    ("rules", "check"),
)

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold]:smile:"


@pytest.fixture
def light(make_parts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parts whose ledger the commands find by their environment."""
    parts = make_parts(formats=("csv",))
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "300")
    return parts


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
) -> Callable[..., tuple[int, str]]:
    """Run the console script on something that fails; returns status and standard error."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def fail(*arguments: str, quiet: bool = True) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["scanherald", *arguments])
        with pytest.raises(SystemExit) as caught:
            front_door.main()
        said = capsys.readouterr()
        assert not (quiet and said.out)
        assert said.err.count("\n") == 1, "one line"
        assert said.err.startswith("error: ")
        assert isinstance(caught.value.code, int)
        return caught.value.code, said.err

    return fail


@pytest.fixture
def judged(light: Any, record: Any, make_scan: Any, subscribe: Any) -> Any:
    """One scan that has travelled the whole road; returns its run's id."""
    subscribe(light, events=("scan.completed",))
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    (delivery,) = settle(light, ticket.run_id, 1)
    try_delivery(light, delivery)
    return ticket.run_id


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    command: tuple[str, ...], run: Callable[..., str]
) -> None:
    said = run(*command, "--help")
    assert f"Example: scanherald {command[0]}" in said or "Example: REDIS_URL=" in said


def test_the_front_door_names_every_command_and_where_to_start(run: Callable[..., str]) -> None:
    said = run("--help")
    assert "Start here: scanherald demo" in said
    for command in COMMANDS:
        assert command[0] in said


def test_runs_are_listed_as_a_table_and_as_json(judged: str, run: Callable[..., str]) -> None:
    table = run("runs")
    assert judged in table
    assert "shop.example" in table
    (row,) = json.loads(run("runs", "--json"))
    assert (row["run_id"], row["state"], row["type"]) == (judged, "done", "scan.completed")
    assert row["cookie_count"] == 2
    assert row["settled_at"] == "2026-03-04T12:00:00Z"


def test_runs_are_filtered_by_state_domain_and_limit(
    judged: str, light: Any, record: Any, make_scan: Any, run: Callable[..., str]
) -> None:
    record(light, make_scan(2, domain="other.example"))

    def found(*options: str) -> list[str]:
        return [row["subject"] for row in json.loads(run("runs", "--json", *options))]

    assert sorted(found()) == ["other.example", "shop.example"]
    assert found("--state", "recorded") == ["other.example"]
    assert found("--domain", "shop.example") == ["shop.example"]
    assert len(found("--limit", "1")) == 1


def test_reports_are_listed_with_size_digest_and_place(
    judged: str, run: Callable[..., str]
) -> None:
    (row,) = json.loads(run("reports", "--json"))
    assert Path(row["uri"]).stat().st_size == row["size_bytes"]
    assert len(row["sha256"]) == 64
    table = run("reports", "--domain", "shop.example")
    assert "csv" in table
    assert str(row["uri"]) in table
    assert json.loads(run("reports", "--json", "--domain", "other.example")) == []
    assert len(json.loads(run("reports", "--json", "--scan", row["scan_id"]))) == 1


def test_deliveries_are_listed_and_never_with_an_address(
    judged: str, run: Callable[..., str]
) -> None:
    (row,) = json.loads(run("deliveries", "--json"))
    assert (row["subscriber_id"], row["channel"], row["state"]) == ("anna", "webhook", "sent")
    assert "anna.example" not in run("deliveries", "--json")
    assert "sent" in run("deliveries", "--state", "sent")
    assert json.loads(run("deliveries", "--json", "--state", "failed")) == []


@pytest.mark.parametrize("options", [(), ("--failed",), ("--state", "sent", "--limit", "1")])
def test_deliveries_list_is_deliveries_by_another_name(
    options: tuple[str, ...], judged: str, run: Callable[..., str]
) -> None:
    assert run("deliveries", "list", *options) == run("deliveries", *options)
    listed = json.loads(run("deliveries", "list", *options, "--json"))
    assert len(listed) == (0 if "--failed" in options else 1)


def test_an_empty_list_says_what_to_do_next_and_is_an_empty_array_for_scripts(
    run: Callable[..., str],
) -> None:
    assert "scanherald publish" in run("runs")
    assert "No reports yet" in run("reports")
    assert "scanherald subscribers add" in run("deliveries")
    assert "scanherald subscribers add" in run("subscribers", "list")
    assert "No dead letters" in run("dead-letters")
    for command in (["runs"], ["reports"], ["deliveries"], ["dead-letters"]):
        assert json.loads(run(*command, "--json")) == []
    assert json.loads(run("subscribers", "list", "--json")) == []


def test_a_subscriber_is_added_listed_replaced_and_removed(run: Callable[..., str]) -> None:
    added = run(
        *("subscribers", "add", "anna", "--email", "anna.muster@example.org"),
        *("--domain", "*.example.org", "--event", "scan.failed", "--min-severity", "medium"),
        *("--user", "u-1"),
    )
    assert "Added anna." in added
    (row,) = json.loads(run("subscribers", "list", "--json"))
    assert row == {
        "subscriber_id": "anna",
        "user_id": "u-1",
        "channels": "email an…@example.org",
        "events": "scan.failed",
        "domains": "*.example.org",
        "min_severity": "medium",
        "quiet_hours": None,
        "digest": "immediate",
        "language": None,
        "attach": "",
        "paused": False,
        "disabled": "",
    }
    assert "Replaced anna." in run("subscribers", "add", "anna", "--email", "a@example.org")
    assert "all" in run("subscribers", "list")
    assert "Removed anna." in run("subscribers", "remove", "anna")
    assert json.loads(run("subscribers", "list", "--json")) == []


def test_a_made_webhook_secret_is_shown_once_and_is_the_one_that_signs(
    light: Any, run: Callable[..., str]
) -> None:
    said = run("subscribers", "add", "anna", "--webhook", "https://r.example/hook?token=t0ken")
    (shown,) = [word for word in said.split() if word.startswith("whsec_")]
    with light.ledger.read() as connection:
        (subscriber,) = list_subscribers(connection, light.box)
    assert subscriber.channels[0].secret == shown
    listed = run("subscribers", "list") + run("subscribers", "list", "--json")
    assert shown not in listed
    assert "t0ken" not in listed
    assert "https://r.example/…" in listed


def test_a_given_webhook_secret_is_not_shown_at_all(run: Callable[..., str]) -> None:
    secret = "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
    webhook = ("--webhook", "https://r.example/hook", "--webhook-secret", secret)
    said = run("subscribers", "add", "anna", *webhook)
    assert secret not in said
    answer = json.loads(run("subscribers", "add", "anna", *webhook, "--json"))
    assert answer == {"subscriber_id": "anna", "new": False, "webhook_secret": None}


def test_json_of_an_added_subscriber_holds_the_made_secret(run: Callable[..., str]) -> None:
    answer = json.loads(
        run("subscribers", "add", "anna", "--webhook", "https://r.example/hook", "--json")
    )
    assert answer["new"] is True
    assert answer["webhook_secret"].startswith("whsec_")


@pytest.mark.parametrize(
    ("kind", "target", "shown"),
    [
        (ChannelKind.EMAIL, "anna.muster@example.org", "an…@example.org"),
        (ChannelKind.WEBHOOK, "https://u:pw@r.example:8443/a/b?c=d", "https://r.example/…"),
        (ChannelKind.WEBHOOK, "https://r.example?token=s3cret", "https://r.example/…"),
        (ChannelKind.WEBHOOK, "https://r.example#s3cret", "https://r.example/…"),
        (ChannelKind.SLACK, "https://hooks.slack.com/services/T/B/x", "https://hooks.slack.com/…"),
        (ChannelKind.WEBHOOK, "https://[s3cret", "…"),
    ],
)
def test_an_address_is_shortened_to_what_is_no_secret(
    kind: ChannelKind, target: str, shown: str
) -> None:
    assert shortened(ChannelAddress(kind=kind, target=target)) == shown


@pytest.fixture
def dead(light: Any) -> Any:
    """A dead letter of a hostile scanner."""
    entry = Entry("scans:events", "7-0", {b"data": HOSTILE.encode()})
    with light.ledger.write() as connection:
        record_dead(connection, DeadEntry(entry, f"bad: {HOSTILE}"), light.clock())
    return entry


def test_dead_letters_are_listed_and_shown(dead: Entry, run: Callable[..., str]) -> None:
    (row,) = json.loads(run("dead-letters", "--json"))
    assert (row["stream"], row["entry_id"]) == ("scans:events", "7-0")
    assert row["payload_size"] == 4 + len(HOSTILE.encode())
    assert "7-0" in run("dead-letters")
    assert json.loads(run("dead-letters", "show", str(row["number"]))) == {"data": HOSTILE}


def test_control_characters_of_a_scan_do_not_reach_the_terminal(
    dead: Entry, run: Callable[..., str]
) -> None:
    said = run("dead-letters")
    assert not set(said) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    assert r"\x1b]0;owned\x07" in said
    assert "[bold]:smile:" in said, "neither markup nor emoji codes are obeyed"


def test_control_characters_stay_escaped_in_json_for_scripts(
    dead: Entry, run: Callable[..., str]
) -> None:
    said = run("dead-letters", "--json")
    assert "\x1b" not in said
    assert json.loads(said)[0]["reason"] == f"bad: {HOSTILE}"


def test_a_cell_is_one_line() -> None:
    assert cell("a\r\nb") == r"a\x0d\x0ab"


def test_publishing_prints_each_files_entry_id(
    run: Callable[..., str], join: Any, client: Any, make_scan: Any, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.json").write_bytes(make_scan(number))
    paths = [str(tmp_path / f"{number}.json") for number in (1, 2)]
    answer = json.loads(run("publish", *paths, "--userid", "u-1", "--json"))
    assert list(answer) == paths
    found = client.xrange("scans:events")
    assert [entry_id.decode() for entry_id, _ in found] == list(answer.values())
    assert found[0][1] == {
        b"data": make_scan(1),
        b"type": b"scan.completed",
        b"userid": b"u-1",
    }
    assert paths[0] in run("publish", paths[0], "--stream", "other")
    assert client.xlen("other") == 1


def test_publishing_a_missing_file_is_one_clear_line(
    fail: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    status, said = fail("publish", str(tmp_path / "gone.json"))
    assert status == 1
    assert said == f"error: cannot read {tmp_path / 'gone.json'}: No such file or directory\n"


def test_an_unreachable_redis_is_worth_another_try_later(
    fail: Callable[..., tuple[int, str]], join: Any, server: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_bytes(b"{}")
    server.connected = False
    status, said = fail("publish", str(tmp_path / "a.json"))
    assert status == 75
    assert "is it running, and is REDIS_URL right?" in said


def test_a_bad_setting_is_one_clear_line_that_names_the_variable(
    fail: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANHERALD_FORMATS", "csv,xls")
    status, said = fail("runs")
    assert status == 1
    assert "SCANHERALD_FORMATS item 2" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("subscribers", "add", "anna"), "give at least one of --email, --webhook, --slack"),
        (("subscribers", "add", "a\x1b[2J", "--email", "a@example.org"), "printable characters"),
        (("subscribers", "add", "x" * 129, "--email", "a@example.org"), "1 to 128"),
        (("subscribers", "add", "anna", "--email", "nobody"), "--email"),
        (("subscribers", "add", "anna", "--webhook", "http://r.example/"), "http"),
        (("subscribers", "remove", "no[red]body"), "no subscriber 'no[red]body'"),
        (("dead-letters", "show", "99"), "no dead letter 99"),
        (("publish", "gone\x1b[2J.json"), r"gone\x1b[2J.json"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    fail: Callable[..., tuple[int, str]], arguments: tuple[str, ...], words: str
) -> None:
    status, said = fail(*arguments)
    assert status == 1
    assert words in said


def test_a_long_error_is_still_one_line(
    fail: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, said = fail("publish", f"{'long/' * 30}scan.json")
    assert said.endswith("scan.json: No such file or directory\n")


@pytest.fixture
def started(light: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What Celery was started with; nothing runs."""
    seen: list[list[str]] = []
    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    monkeypatch.setattr(wiring, "use", lambda settings: None)
    monkeypatch.setattr(celery_app, "worker_main", seen.append)
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # of the whole process
    monkeypatch.setattr(celery_app, "start", seen.append)
    monkeypatch.setattr(celery_app, "backend_cls", celery_app.backend_cls)
    return seen


def test_a_worker_serves_every_queue_by_default(
    run: Callable[..., str], started: list[list[str]]
) -> None:
    run("worker")
    assert "--queues=default,reports,notifications" in started[0]
    assert "--pool=prefork" in started[0]
    assert "--loglevel=INFO" in started[0]


def test_a_workers_options_reach_celery(run: Callable[..., str], started: list[list[str]]) -> None:
    run(
        *("worker", "--queue", "reports", "--queue", "default", "--concurrency", "4"),
        *("--autoscale", "8,2", "--loglevel", "debug", "--pool", "threads"),
        *("--max-tasks-per-child", "100", "--name", "reports@%h"),
    )
    assert {
        "--queues=reports,default",
        "--concurrency=4",
        "--autoscale=8,2",
        "--loglevel=DEBUG",
        "--pool=threads",
        "--max-tasks-per-child=100",
        "--hostname=reports@%h",
    } <= set(started[0])


def test_a_killed_beats_pid_file_does_not_keep_the_next_from_starting(
    light: Any, run: Callable[..., str], started: list[list[str]]
) -> None:
    pid_file = light.settings.data_dir / "beat.pid"
    pid_file.write_text(str(os.getpid()))
    run("beat")
    assert not pid_file.exists()
    assert started[0] == ["beat", "--loglevel=INFO", f"--pidfile={pid_file}"]


def test_migrate_makes_a_ledger_of_this_release_and_may_be_repeated(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # of the whole process
    said = run("migrate")
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    revision, newest = ledger.revisions()
    ledger.close()
    assert revision == newest
    assert said == f"The ledger is at revision {newest}.\n" == run("migrate")


def give_up(parts: Any, *run_ids: str) -> None:
    with parts.ledger.write() as connection:
        for run_id in run_ids:
            assert settle_dead(connection, run_id, "its disk was full", parts.clock())


def test_a_dead_run_is_taken_up_again_by_its_id(
    light: Any, record: Any, make_scan: Any, rows: Any, run: Callable[..., str]
) -> None:
    first, second = (record(light, make_scan(number)).run_id for number in (1, 2))
    give_up(light, first, second)
    said = json.loads(run("runs", "retry", first, "--json"))
    assert said == {"revived": [first], "not_dead": []}
    states = {row["run_id"]: row["state"] for row in rows(light, "runs")}
    assert states == {first: "recorded", second: "dead"}


def test_all_dead_runs_are_taken_up_again(
    light: Any, record: Any, make_scan: Any, rows: Any, run: Callable[..., str]
) -> None:
    ids = [record(light, make_scan(number)).run_id for number in range(1, 4)]
    give_up(light, *ids[:2])
    assert "2 runs taken up again" in run("runs", "retry", "--dead")
    assert {row["state"] for row in rows(light, "runs")} == {"recorded"}
    assert "0 runs taken up again" in run("runs", "retry", "--dead")


def test_what_is_not_dead_is_not_retried_and_said_so(
    light: Any,
    record: Any,
    make_scan: Any,
    fail: Callable[..., tuple[int, str]],
) -> None:
    run_id = record(light, make_scan()).run_id
    status, said = fail("runs", "retry", run_id, "--json", quiet=False)
    assert status == 1
    assert f"neither dead nor cancelled: {run_id}" in said
    status, said = fail("runs", "retry")
    assert status == 1
    assert "--dead" in said


@pytest.mark.parametrize("command", ["runs", "deliveries"])
def test_an_unknown_state_is_refused_with_those_there_are(command: str, light: Any) -> None:
    result = CliRunner().invoke(app, [command, "--state", "foo"])
    assert result.exit_code == 2
    assert "dead" in result.output or "pending" in result.output


@pytest.mark.parametrize("lazy", front_door.COMMANDS, ids=lambda lazy: lazy.name)
def test_the_help_says_of_a_command_what_it_says_of_itself(lazy: Any) -> None:
    command = Stub(lazy).load()
    assert command.name == lazy.name
    assert command.get_short_help_str(300) == lazy.line


def test_the_help_loads_no_command_and_no_settings() -> None:
    code = (
        "import sys; sys.argv = ['scanherald', '--help']; from cli.main import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "heavy = {'cli.runs', 'cli.subscribers', 'schemas.settings', 'pydantic', 'celery'}\n"
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules))))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "subscribers" in ran.stdout
    assert ran.stderr == ""
