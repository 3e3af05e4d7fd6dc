"""``replay``, ``replays`` and ``dead-letters`` as an operator types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fakeredis
import pytest
from typer.testing import CliRunner

from cli import main as front_door
from cli import replaying
from cli.main import app
from schemas.replays import Counts
from schemas.runs import DeadEntry, Entry, RunTicket
from store import events
from tasks import chords, redis_server, wiring
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats
from tasks.wiring import Wiring


@pytest.fixture
def light(
    make_parts: Callable[..., Wiring],
    server: fakeredis.FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Wiring:
    """Parts that the commands find, with workers that are done at once."""
    parts = make_parts(formats="json,csv")
    monkeypatch.setattr(wiring, "use", lambda _: None)
    monkeypatch.setattr(parts, "close", lambda: None)  # its channels are the test's
    monkeypatch.setattr(wiring, "utc_now", parts.clock)
    monkeypatch.setattr(sys.modules["tasks.app"], "publish_only", lambda: None)
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)
    monkeypatch.setattr(replaying.signal, "signal", lambda *_: None)
    monkeypatch.setattr(chords, "dispatch", lambda tickets: work(parts, tickets))
    monkeypatch.setattr(
        redis_server,
        "redis",
        SimpleNamespace(
            Redis=SimpleNamespace(from_url=lambda *_, **__: fakeredis.FakeRedis(server=server))
        ),
    )
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("SCANHERALD_FORMATS", "json,csv")
    monkeypatch.setenv("COLUMNS", "250")
    return parts


def work(parts: Wiring, tickets: Iterable[RunTicket]) -> None:
    for ticket in tickets:
        if ticket.formats:
            render_formats(parts, ticket.run_id, ticket.formats)
        for delivery in settle(parts, ticket.run_id, ticket.attempt):
            try_delivery(parts, delivery)


@pytest.fixture
def run(light: Wiring) -> Callable[..., Any]:
    def run(*arguments: str, **options: Any) -> Any:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, **options)
        assert result.exit_code == 0, result.output
        return result

    return run


@pytest.fixture
def fail(
    light: Wiring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, str, str]]:
    """Run the console script on something that fails; returns status and both outputs."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def fail(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["scanherald", *arguments])
        with pytest.raises(SystemExit) as caught:
            front_door.main()
        said = capsys.readouterr()
        return caught.value.code, said.out, said.err

    return fail


@pytest.fixture
def two(light: Wiring, record: Any, make_scan: Any, subscribe: Any) -> None:
    """Two scans, recorded, reported and told to anna."""
    subscribe(light)
    work(light, [record(light, make_scan(number)) for number in (1, 2)])


def answer(said: str) -> Any:
    """The JSON of an output, behind log lines of the work done in this process."""
    lines = said.splitlines()
    return json.loads("\n".join(lines[min(map(lines.index, {"{", "["} & set(lines))) :]))


def bury(parts: Wiring, fields: dict[bytes, bytes], entry_id: str = "7-0", looks: int = 1) -> int:
    """Set an entry aside; returns its number."""
    letter = DeadEntry(Entry("scans:events", entry_id, fields), "broken")
    with parts.ledger.write() as connection:
        for _ in range(looks):
            events.bury(connection, letter, parts.clock())
        return int(events.list_dead_letters(connection, 1)[0]["event_pk"])


def test_a_replay_answers_in_json_and_is_listed(run: Any, two: None) -> None:
    found = answer(run("replay", "--force", "--formats", "csv", "--json").stdout)
    assert (found["state"], found["started"], found["formats"]) == ("done", 2, ["csv"])
    assert found["runs"] == {"done": 2, "dead": 0, "cancelled": 0, "unfinished": 0}
    assert found["reports"] == {"ready": 2}
    assert answer(run("replays", "--json").stdout) == [found]
    assert answer(run("replays", "show", found["replay_id"], "--json").stdout) == found
    said = run("replays", "show", found["replay_id"]).stdout
    assert "selected 2: 2 runs, 0 of them of new events; 0 skipped; 0 failed" in said
    assert "go on" not in said
    assert found["replay_id"] in run("replays").stdout


def test_a_dry_run_counts_and_changes_nothing(run: Any, two: None, rows: Any, light: Any) -> None:
    before = [rows(light, name) for name in ("events", "runs", "deliveries", "replays")]
    said = run("replay", "--dry-run", "--force", "--formats", "pdf,csv", "--json").stdout
    found = answer(said)
    assert (found["selected"], found["would_run"], found["would_record"]) == (2, 2, 0)
    assert found["formats"] == {"pdf": 2, "csv": 2}
    assert found["told"] is None
    assert "would be told: nobody" in run("replay", "--dry-run").stdout
    assert [rows(light, name) for name in ("events", "runs", "deliveries", "replays")] == before


def test_a_dry_run_says_who_would_be_told_and_it_comes_true(
    run: Any, two: None, rows: Any, light: Any, subscribe: Any
) -> None:
    subscribe(light, "bert", paused=True)
    subscribe(light, "carl", domains=("other.example",))
    found = answer(run("replay", "--dry-run", "--only", "notify", "--json").stdout)
    told = found["told"]
    assert set(told) == {"anna", "bert"}
    assert told["bert"]["suppressed"] == told["bert"]["notifications"]
    assert told["anna"]["at_once"] == told["anna"]["notifications"] > 2
    before = len(rows(light, "deliveries"))
    run("replay", "--only", "notify", "--yes")
    sent = [row["state"] for row in rows(light, "deliveries")[0:]][
        before - len(rows(light, "deliveries")) :
    ]
    assert sorted(sent) == sorted(
        ["sent"] * told["anna"]["at_once"] + ["suppressed"] * told["bert"]["suppressed"]
    )


def test_a_dry_run_of_files_counts_each_event_once(
    run: Any, light: Any, make_scan: Any, tmp_path: Path, subscribe: Any, rows: Any
) -> None:
    subscribe(light)
    path = tmp_path / "scans.jsonl"
    path.write_bytes(make_scan(1) + b"\n" + make_scan(1) + b"\nbroken\n" + make_scan(2) + b"\n")
    found = answer(
        run("replay", str(path), "--only", "reports,notify", "--dry-run", "--json").stdout
    )
    assert (found["would_record"], found["failed"]) == (2, 1)
    assert found["skipped"] == {"selected twice": 1}
    assert found["formats"] == {"json": 2, "csv": 2}
    assert found["told"]["anna"]["notifications"] >= 2
    assert rows(light, "events") == []


def test_what_cannot_be_used_is_named_and_ends_with_status_1(
    fail: Any, make_scan: Any, tmp_path: Path
) -> None:
    path = tmp_path / "scans.jsonl"
    path.write_bytes(b"".join(b"{\n" for _ in range(25)) + make_scan(1) + b"\n")
    code, out, err = fail("replay", str(path))
    assert code == 1
    assert err.count("scans.jsonl:") == 20
    assert "further ones are counted" in err
    assert "of 26 selected, 25 could not be used" in err
    assert "selected 26: 1 runs, 1 of them of new events; 0 skipped; 25 failed" in out


def test_people_are_not_told_again_without_a_yes(fail: Any, two: None, rows: Any) -> None:
    code, _, err = fail("replay", "--only", "notify")
    assert code == 1
    assert "--yes" in err


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    run: Any, light: Any, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chords, "dispatch", interrupt)
    stopped = CliRunner().invoke(app, ["replay", "--force", "--in-flight", "1"])
    assert stopped.exit_code == 130
    replay_id = stopped.stderr.split("--resume ")[1].strip()
    (listed,) = answer(run("replays", "--json").stdout)
    assert (listed["replay_id"], listed["state"]) == (replay_id, "interrupted")
    assert (
        f"go on: scanherald replay --resume {replay_id}" in run("replays", "show", replay_id).stdout
    )
    monkeypatch.setattr(chords, "dispatch", lambda tickets: work(light, tickets))
    with light.ledger.read() as connection:
        from store.runs import list_runs

        (left,) = [row for row in list_runs(connection, limit=9) if row["state"] == "recorded"]
    work(light, [RunTicket(left["run_id"], 1, light.settings.formats, False, is_replay=True)])
    done = answer(run("replay", "--resume", replay_id, "--json").stdout)
    assert (done["state"], done["started"], done["runs"]["done"]) == ("done", 2, 2)
    assert answer(run("replay", "--resume", replay_id, "--json").stdout) == done


def test_a_done_replay_that_is_resumed_is_waited_for(
    run: Any, light: Any, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[RunTicket] = []
    monkeypatch.setattr(chords, "dispatch", waiting.extend)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    sleep = light.sleep
    monkeypatch.setattr(light, "sleep", interrupt)
    stopped = CliRunner().invoke(app, ["replay", "--force"])
    assert stopped.exit_code == 130
    assert "all is recorded" in stopped.stderr
    (listed,) = answer(run("replays", "--json").stdout)
    assert (listed["state"], listed["runs"]["unfinished"]) == ("done", 2)

    def end_one(seconds: float) -> None:
        sleep(seconds)
        work(light, [waiting.pop()])

    monkeypatch.setattr(light, "sleep", end_one)
    done = answer(run("replay", "--resume", listed["replay_id"], "--json").stdout)
    assert done["runs"] == {"done": 2, "dead": 0, "cancelled": 0, "unfinished": 0}


def test_a_replay_is_cancelled_with_what_it_started(
    run: Any, fail: Any, light: Any, two: None, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chords, "dispatch", interrupt)
    monkeypatch.setattr("tasks.cancelling.app.control.revoke", lambda _: None)
    CliRunner().invoke(app, ["replay", "--force", "--in-flight", "1"])
    (listed,) = answer(run("replays", "--json").stdout)
    cancelled = answer(
        run("runs", "cancel", "--replay", listed["replay_id"], "--yes", "--json").stdout
    )
    assert len(cancelled["cancelled"]) == 1
    (listed,) = answer(run("replays", "--json").stdout)
    assert (listed["state"], listed["reason"]) == ("cancelled", "cancelled: by hand")
    assert listed["runs"] == {"done": 0, "dead": 0, "cancelled": 1, "unfinished": 0}
    assert [row["outcome"] for row in rows(light, "events")] == ["done", "done"]
    code, _, err = fail("runs", "cancel", "--replay", "x", "--yes")
    assert (code, "no replay x" in err) == (1, True)
    code, _, err = fail("runs", "cancel", "--replay", "x", "--domain", "*", "--yes")
    assert (code, "or --replay" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from-stream", "--from-archive"), "name one source"),
        (("--from-stream", "x.json"), "name one source"),
        (("--resume", "x", "--from-stream"), "name nothing"),
        (("--resume", "x"), "no replay x"),
        (("--only", "all"), "give of reports, notify"),
        (("--formats", "doc"), "give of pdf"),
        (("--rate", "fast"), "runs a second"),
        (("--rate", "0/s"), "above 0"),
        (("--status", ""), "--status is empty"),
        (("--domain", " "), "--domain is empty"),
        (("--in-flight", "500"), "SCANHERALD_REPORTS_HIGH_WATER"),
        (("--type", "scan.done"), "scan.completed"),
        (("--from", "yesterday"), "duration"),
        (("nowhere.json",), "no file or folder nowhere.json"),
        (("--from-dead-letters", "one"), "no number"),
        (("--from-dead-letters", "99"), "no dead letter 99"),
        (("--from-dead-letters", "--only", "notify"), "nothing to tell again"),
    ],
)
def test_what_makes_no_sense_is_refused(fail: Any, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = fail("replay", *arguments)
    assert code == 1
    assert said in " ".join(err.split())


def test_files_have_no_times(fail: Any, tmp_path: Path) -> None:
    assert "--from and --to" in fail("replay", str(tmp_path), "--from", "1d")[2]


def test_a_mended_letter_becomes_an_event_and_a_bad_one_stays(
    run: Any, fail: Any, light: Any, make_scan: Any, rows: Any
) -> None:
    good = bury(light, {b"data": make_scan(1)}, "7-0")
    bad = bury(light, {b"data": b"{"}, "8-0")
    code, _, err = fail("dead-letters", "replay", "--all")
    assert code == 1
    assert f"dead letter {bad}: scan result is not JSON" in err
    (left,) = answer(run("dead-letters", "--json").stdout)
    assert (left["number"], left["what"]) == (bad, "entry")
    assert left["reason"].startswith("scan result is not JSON")
    (event,) = [row for row in rows(light, "events") if row["outcome"] == "done"]
    assert (event["stream"], event["entry_id"]) == ("scans:events", "7-0")
    assert event["event_pk"] != good
    assert len(rows(light, "reports")) == 2
    assert rows(light, "notifications") == []


def test_a_letter_that_was_cut_is_read_from_the_stream_if_it_is_there(
    run: Any, fail: Any, light: Any, make_scan: Any, client: Any, rows: Any
) -> None:
    big = make_scan(1, note="x" * 100_000)
    entry_id = client.xadd("scans:events", {"data": big}).decode()
    number = bury(light, {b"data": big}, entry_id)
    client.xadd("scans:events", {"data": "another"}, id=f"{int(entry_id.split('-')[0]) + 1}-0")
    gone = bury(light, {b"data": make_scan(2, note="y" * 100_000)}, "9-0")
    other_id = client.xadd("scans:events", {"data": "other"}).decode()
    other = bury(light, {b"data": make_scan(3, note="z" * 100_000)}, other_id)
    _, out, err = fail("dead-letters", "replay", str(number), str(gone), str(other))
    assert "1 runs, 1 of them of new events" in out
    assert f"dead letter {gone}: it was not kept whole, and the entry is not in the stream" in err
    assert f"dead letter {other}: it was not kept whole, and the stream has another entry" in err
    assert len(rows(light, "scans")) == 1


def test_a_letter_whose_event_is_known_goes_and_one_of_another_events_scan_stays(
    fail: Any, light: Any, make_scan: Any, record: Any, rows: Any
) -> None:
    work(light, [record(light, make_scan(1)), record(light, make_scan(2), id="x", source="s")])
    known = bury(light, {b"data": make_scan(1)}, "7-0")
    other = bury(light, {b"data": make_scan(2, cookies=[])}, "8-0")
    _, out, err = fail("replay", "--from-dead-letters", "--force", str(known), str(other))
    assert "selected 2: 1 runs, 0 of them of new events" in out
    assert f"dead letter {other}: its scan is in the ledger by another event" in err
    assert [row["event_pk"] for row in rows(light, "events") if row["outcome"] == "dead"] == [other]


def test_a_letter_that_killed_the_listener_is_taken_by_its_number_alone(
    run: Any, light: Any, make_scan: Any, rows: Any
) -> None:
    number = bury(light, {b"data": make_scan(1)}, looks=4)
    said = run("dead-letters", "replay", "--all").stdout
    assert "1 skipped: looking at it killed the listener" in said
    run("dead-letters", "replay", str(number))
    assert [row["outcome"] for row in rows(light, "events")] == ["done"]


def test_a_discarded_letter_leaves_a_trace(run: Any, fail: Any, light: Any, rows: Any) -> None:
    number = bury(light, {b"data": b"{"})
    assert "--yes" in fail("dead-letters", "discard", str(number), "--reason", "a test")[2]
    assert "must say why" in fail("dead-letters", "discard", "1", "--reason", " ", "--yes")[2]
    said = run("dead-letters", "discard", str(number), "--reason", "a test", "--yes", "--json")
    assert json.loads(said.stdout) == {"discarded": [number], "reason": "a test"}
    (event,) = rows(light, "events")
    assert (event["outcome"], event["payload"]) == ("discarded", None)
    assert event["reason"] == "discarded on 2026-03-04 12:00 UTC: a test (was: broken)"
    assert run("dead-letters", "list").stdout.strip() == "No dead letters."
    assert "a test" in fail("dead-letters", "discard", str(number), "--reason", "b", "--yes")[2]


def test_an_event_whose_run_is_dead_is_no_letter(
    run: Any, fail: Any, light: Any, record: Any, make_scan: Any
) -> None:
    from store.runs import settle_dead

    ticket = record(light, make_scan())
    with light.ledger.write() as connection:
        settle_dead(connection, ticket.run_id, "broken", light.clock())
    (listed,) = answer(run("dead-letters", "list", "--json").stdout)
    assert listed["what"] == "run"
    said = fail("dead-letters", "replay", str(listed["number"]))[2]
    assert f"scanherald runs retry {ticket.run_id}" in " ".join(said.split())
    assert "name letters" in fail("dead-letters", "replay")[2]


def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with replaying._bar("replay") as bar:
        bar(0.5, "half")
    from rich.console import Console

    shown: list[Any] = []
    terminal = Console(force_terminal=True, file=sys.stderr)
    monkeypatch.setattr(replaying, "Console", lambda **_: terminal)
    monkeypatch.setattr(terminal, "print", shown.append)
    with replaying._bar("replay") as bar:
        bar(1.0, "all")


def test_silence_is_told_once() -> None:
    moments = iter((0.0, 0.0, 20.0, 40.0, 90.0))
    said: list[str] = []
    shown: Any = replaying._Shown(
        lambda *_: None, cast("Any", SimpleNamespace(print=said.append)), lambda: next(moments)
    )
    replay = SimpleNamespace(counts=Counts(selected=5))
    for _ in range(4):
        shown(SimpleNamespace(replay=replay, fraction=0.5, in_flight=3, failures=()))
    assert len(said) == 1
    assert "do workers run" in said[0]
