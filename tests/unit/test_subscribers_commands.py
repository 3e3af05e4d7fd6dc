"""The subscribers' commands: what is wished is checked, kept, shown, imported and tried out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.fernet import Fernet
from standardwebhooks import Webhook
from typer.testing import CliRunner

from channels.spoken import speak
from cli.importing import read_lines
from cli.main import app
from cli.sinks import HttpSink
from languages.language import load_language
from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    DestinationForbidden,
    InvalidSettings,
    RateLimited,
)
from schemas.notifications import ChannelKind, DigestRhythm, QuietHours, Receipt, Subscriber
from schemas.reports import Severity
from store.endpoints import note_failure
from store.secrets import SecretBox
from store.subscribers import find_subscriber, list_subscribers
from tasks import wiring

HOOK = ("--webhook", "https://r.example/hook")


@pytest.fixture
def light(make_parts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parts whose ledger the commands find by their environment."""
    parts = make_parts()
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "400")
    return parts


@pytest.fixture
def run(light: Any) -> Callable[..., str]:
    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["subscribers", *arguments], catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result.stdout

    return run


@pytest.fixture
def refused(light: Any) -> Callable[..., str]:
    def refused(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["subscribers", *arguments])
        assert isinstance(result.exception, Exception)
        return str(result.exception)

    return refused


@pytest.fixture
def kept(light: Any) -> Callable[[str], Subscriber]:
    def kept(name: str = "anna") -> Subscriber:
        with light.ledger.read() as connection:
            found = find_subscriber(connection, name, light.box)
        assert found is not None
        return found

    return kept


def test_every_wish_is_kept(run, kept):
    run(
        *("add", "anna", "--email", "a@example.org", "--event", "scan.failed"),
        *("--domain", "*.Example.org", "--min-severity", "low", "--user", "u-1"),
        *("--quiet-hours", "22:00-06:00", "--time-zone", "Europe/Berlin", "--passing", "none"),
        *("--digest", "daily", "--digest-at", "07:30", "--digest-below", "medium"),
        *("--language", "de", "--attach", "pdf", "--attach", "csv"),
    )
    anna = kept()
    assert anna.quiet_hours == QuietHours(
        start="22:00", end="06:00", time_zone="Europe/Berlin", passing=None
    )
    assert anna.digest.rhythm is DigestRhythm.DAILY
    assert (anna.digest.at, anna.digest.below) == ("07:30", Severity.MEDIUM)
    assert anna.digest.time_zone == "Europe/Berlin"
    assert (anna.locale, anna.attach, anna.domains) == ("de", ("pdf", "csv"), ("*.example.org",))
    listed = run("list")
    assert "22:00-06:00 Europe/Berlin, nothing passes" in listed
    assert "daily at 07:30 Europe/Berlin, below medium" in listed


def test_an_edit_changes_what_is_named_and_nothing_else(run, kept):
    run("add", "anna", "--email", "a@example.org", *HOOK, "--digest", "hourly", "--user", "u")
    before = kept()
    run("edit", "anna", "--min-severity", "high")
    assert kept() == Subscriber(
        **{name: getattr(before, name) for name in before.__struct_fields__}
        | {"min_severity": Severity.HIGH}
    )
    run("edit", "anna", "--quiet-hours", "21-05:00".replace("21", "21:00"), "--time-zone", "UTC")
    run("edit", "anna", "--quiet-hours", "20:00-05:00")
    assert kept().quiet_hours == QuietHours(start="20:00", end="05:00", time_zone="UTC")
    run("edit", "anna", "--passing", "medium")
    assert kept().quiet_hours.passing is Severity.MEDIUM
    assert kept().channels == before.channels, "the webhook's secret too"


def test_what_is_named_none_or_all_is_taken_away(run, kept):
    run(
        *("add", "anna", "--email", "a@example.org", *HOOK, "--event", "scan.failed"),
        *("--domain", "a.org", "--quiet-hours", "22:00-06:00", "--time-zone", "UTC"),
        *("--language", "fr", "--attach", "pdf", "--user", "u"),
    )
    run(
        *("edit", "anna", "--email", "none", "--event", "all", "--domain", "all"),
        *("--quiet-hours", "none", "--language", "none", "--attach", "none", "--user", "none"),
    )
    anna = kept()
    assert [address.kind for address in anna.channels] == [ChannelKind.WEBHOOK]
    assert (anna.events, anna.domains, anna.attach) == ((), (), ())
    assert (anna.quiet_hours, anna.locale, anna.user_id) == (None, None, None)


def test_a_pause_and_its_end_change_nothing_else(run, kept):
    run("add", "anna", *HOOK)
    before = kept()
    assert "Paused anna" in run("pause", "anna")
    assert kept().paused
    assert "Resumed anna" in run("resume", "anna")
    assert kept() == before


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (("--time-zone", "Europe/Berln"), "did you mean Europe/Berlin"),
        (("--quiet-hours", "22:00-06:00"), "--quiet-hours needs --time-zone"),
        (("--quiet-hours", "22:00", "--time-zone", "UTC"), "is not two times"),
        (("--quiet-hours", "25:00-06:00", "--time-zone", "UTC"), "'25:00' is not a time of day"),
        (("--quiet-hours", "22:00-22:00", "--time-zone", "UTC"), "begin when they end"),
        (("--passing", "low"), "--passing needs --quiet-hours"),
        (("--digest", "dayly"), "did you mean daily?"),
        (("--digest-at", "08:00"), "--digest-at needs --digest daily"),
        (("--digest", "daily", "--digest-at", "8"), "'8' is not a time of day"),
        (("--digest-below", "high"), "--digest-below needs --digest"),
        (("--language", "tlh"), "has no catalogue; known: de, en"),
        (("--attach", "docx"), "--attach 'docx' is unknown"),
        (("--event", "scan.complete"), "did you mean scan.completed?"),
        (("--event", "notification.digest"), "is unknown"),
        (("--min-severity", "urgent"), "it is one of: info, low, medium, high"),
        (("--domain", "https://example.org/"), "is not a domain or a glob"),
        (("--domain", "{a,b}.org"), "is not a domain or a glob"),
        (("--domain", "[ab.org"), "is not a domain or a glob"),
        (("--webhook-secret", "whsec_eA=="), "--webhook-secret needs --webhook"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused_with_what_to_do(refused, run, wishes, words):
    assert words in refused("add", "anna", "--email", "a@example.org", *wishes)
    assert json.loads(run("list", "--json")) == []


@pytest.mark.parametrize("name", ["", "  ", " anna", "anna\n", "a\x1bb", "a" * 129, "direct:u"])
def test_a_name_that_nobody_could_type_or_that_is_taken_is_refused(refused, run, name):
    assert "name" in refused("add", name, "--email", "a@example.org")
    assert json.loads(run("list", "--json")) == []


def test_blanks_round_a_name_in_a_file_are_none_of_it(run, kept, tmp_path):
    path = tmp_path / "team.csv"
    path.write_text("subscriber_id,email\n anna ,a@example.org\n")
    imported(run, path)
    assert kept("anna").channels[0].target == "a@example.org"


def test_an_edit_of_nothing_or_of_nobody_says_so(refused, run):
    run("add", "anna", *HOOK)
    assert "name what to change" in refused("edit", "anna")
    assert "give at least one of" in refused("edit", "anna", "--webhook", "none")
    for command in (("edit", "ben", "--user", "u"), ("show", "ben"), ("pause", "ben")):
        assert "no subscriber 'ben'" in refused(*command)


def test_all_of_one_is_shown_and_no_secret(run, light, kept):
    run("add", "anna", *HOOK, "--digest", "daily")
    with light.ledger.write() as connection:
        note_failure(
            connection,
            "anna",
            ChannelKind.WEBHOOK,
            now=light.clock(),
            max_failing=timedelta(days=5),
            max_gap=timedelta(days=1),
            gone=True,
        )
    row = json.loads(run("show", "anna", "--json"))
    assert row["disabled"].startswith("webhook: the address is disabled: it said that it is gone")
    assert row["held_for_digest"] == row["held_for_quiet_hours"] == 0
    assert row["created_at"]
    assert row["changed_at"]
    shown = run("show", "anna")
    assert "daily at 08:00 UTC, below high" in shown
    assert kept().channels[0].secret not in shown
    assert "is gone" in run("list")


# Import

CSV = """subscriber_id,email,webhook,events,domains,quiet_hours,time_zone,digest,language,paused
anna,a@example.org,,scan.failed scan.completed,*.org,22:00-06:00,Europe/Berlin,daily,de,
ben,,https://r.example/b,,,,,,,yes
"""


def imported(run: Any, path: Path, *options: str, status: int = 0) -> Any:
    return json.loads(run("import", str(path), "--json", *options, status=status))


def test_a_csv_file_is_imported(run, kept, tmp_path):
    path = tmp_path / "team.csv"
    path.write_text(CSV, "utf-8-sig")
    answer = imported(run, path)
    assert (answer["imported"], answer["new"], answer["errors"]) == (2, 2, [])
    assert kept().events == ("scan.failed", "scan.completed")
    assert kept().digest.time_zone == "Europe/Berlin"
    assert kept("ben").paused
    assert kept("ben").channels[0].secret == answer["webhook_secrets"]["ben"]
    again = imported(run, path)
    assert (again["imported"], again["new"], again["webhook_secrets"]) == (2, 0, {})
    assert kept("ben").channels[0].secret == answer["webhook_secrets"]["ben"], "it is kept"


RECORDS = [
    {"subscriber_id": "anna", "email": "a@example.org", "events": ["scan.failed"]},
    {"subscriber_id": "ben", "slack": "https://hooks.slack.com/x", "attach": "pdf html"},
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("team.json", json.dumps(RECORDS, indent=2)),
        ("team.jsonl", "\n\n".join(json.dumps(record) for record in RECORDS)),
    ],
)
def test_json_is_imported_as_a_list_and_line_by_line(run, kept, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert "Imported 2 subscribers, 2 of them new." in run("import", str(tmp_path / name))
    assert kept("ben").attach == ("pdf", "html")


def test_a_dry_run_checks_and_writes_nothing(run, tmp_path):
    path = tmp_path / "team.csv"
    path.write_text(CSV)
    assert "Would import 2 subscribers, 2 of them new." in run("import", str(path), "--dry-run")
    assert imported(run, path, "--dry-run")["imported"] == 0
    assert json.loads(run("list", "--json")) == []


def test_one_bad_line_keeps_all_out_and_every_bad_line_is_named(run, tmp_path):
    lines = [
        {"subscriber_id": "good", "email": "a@example.org"},
        {"subscriber_id": "zone", "email": "a@example.org", "quiet_hours": "1:00-2:00"},
        {"subscriber_id": "", "email": "a@example.org"},
        {"subscriber_id": "good", "email": "b@example.org"},
        {"subscriber_id": "typo", "emial": "b@example.org"},
        {"subscriber_id": "type", "email": 7},
        {"subscriber_id": "hook", "webhook": "http://r.example/"},
        {"subscriber_id": "list", "email": "a@example.org", "events": [1]},
        {"subscriber_id": "paused", "email": "a@example.org", "paused": "perhaps"},
        {"subscriber_id": 5, "email": "a@example.org"},
        {"subscriber_id": True, "email": "a@example.org"},
        {"subscriber_id": " good ", "email": "a@example.org"},
        {"subscriber_id": "direct:u", "email": "a@example.org"},
        {"email": "a@example.org"},
    ]
    path = tmp_path / "team.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    answer = imported(run, path, status=1)
    assert answer["imported"] == 0
    assert [bad["line"] for bad in answer["errors"]] == [*range(2, 15)]
    told = {bad["line"]: bad["error"] for bad in answer["errors"]}
    assert "in line 1 already" in told[4]
    assert "did you mean email?" in told[5]
    assert told[10] == told[11] == "subscriber_id is not a text"
    assert "in line 1 already" in told[12]
    assert "begin with direct:" in told[13]
    assert json.loads(run("list", "--json")) == []
    result = CliRunner().invoke(app, ["subscribers", "import", str(path)])
    assert "13 of 14 lines are bad; nothing was imported" in result.stderr
    assert "line 5, typo: field 'emial' is unknown; did you mean email?" in result.stderr


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"", "is not named .csv, .json or .jsonl"),
        ("a.csv", b"name,email\nx,y\n", "no column subscriber_id"),
        ("a.csv", b"", "no column subscriber_id"),
        ("a.csv", b"subscriber_id,email\nx,y,z\n", "line 2 has more cells"),
        ("a.csv", b"\xff", "is not UTF-8"),
        (
            "a.csv",
            b"subscriber_id,email,email\nx,a@b.org,c@d.org\n",
            "more than one column email",
        ),
        ("a.json", b'[{"email":"a","slack":"b","email":"c"}]', "names email more than once"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"{}", "is not a list of objects"),
        ("a.json", b"[1]", "item 1 is not a JSON object"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.jsonl", b'{"a":1}\nx', "line 2 is not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(name, data, words):
    with pytest.raises(InvalidSettings, match=words):
        read_lines(name, data)


def test_a_missing_file_is_one_clear_line(refused, tmp_path):
    assert "No such file" in refused("import", str(tmp_path / "gone.csv"))


# Test


@pytest.fixture
def trial(light: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Try anna out with channels that answer so; returns what was printed as JSON."""
    monkeypatch.setattr(wiring, "wire", lambda _: light)
    monkeypatch.setattr(light, "close", lambda: None)

    def trial(answer: Any, *options: str, status: int = 0) -> list[dict[str, Any]]:
        for kind in ChannelKind:
            light.channel(kind).script = [answer]
        printed = run("test", "anna", "--json", *options, status=status)
        return json.loads(printed)  # type: ignore[no-any-return]

    return trial


def test_a_sample_goes_by_the_real_channels_and_its_receipt_is_printed(light, run, trial, rows):
    run("add", "anna", "--email", "anna@example.org", *HOOK, "--language", "de")
    answers = trial(Receipt(status_code=202, text="taken"))
    assert [answer["channel"] for answer in answers] == ["email", "webhook"]
    assert {answer["receipt"] for answer in answers} == {"taken"}
    (message,) = light.channel(ChannelKind.WEBHOOK).sent
    assert message.language == "de"
    assert message.notification.data == {"test": True}
    assert speak(message.notification, load_language("de")).title.startswith("Testnachricht: ")
    assert rows(light, "deliveries") == rows(light, "notifications") == []
    only = trial(Receipt(status_code=None, text="250 OK"), "--channel", "email")
    assert [answer["channel"] for answer in only] == ["email"]
    assert "accepted" in run("test", "anna")
    assert "nothing was written into the ledger" in run("test", "anna")


def test_the_guard_and_the_signature_are_those_of_every_message(run, kept, monkeypatch):
    with HttpSink() as sink:
        monkeypatch.setenv("SCANHERALD_HTTP_ALLOW", f"127.0.0.1:{sink.port}")
        run("add", "anna", "--webhook", f"{sink.url}/hook")
        (answer,) = json.loads(run("test", "anna", "--json"))
        (request,) = sink.requests
        assert request.headers["webhook-id"] == answer["message_id"]
        Webhook(kept().channels[0].secret).verify(request.body, dict(request.headers))
        monkeypatch.setenv("SCANHERALD_HTTP_ALLOW", "")
        (answer,) = json.loads(run("test", "anna", "--json", status=1))
        assert "SCANHERALD_HTTP_ALLOW" in answer["do"]
        assert len(sink.requests) == 1


VERIFIERS = (
    (standardwebhooks.Webhook, standardwebhooks.WebhookVerificationError),
    (svix.webhooks.Webhook, svix.webhooks.WebhookVerificationError),
)


def test_a_secret_is_rotated_while_either_verifies_and_without_knowing_the_old_one(
    run, kept, refused, monkeypatch
):
    with HttpSink() as sink:
        monkeypatch.setenv("SCANHERALD_HTTP_ALLOW", f"127.0.0.1:{sink.port}")

        def accepted(*secrets: str) -> list[bool]:
            run("test", "anna")
            request, answers = sink.requests[-1], []
            for secret in secrets:
                for verifier, refusal in VERIFIERS:
                    try:
                        verifier(secret).verify(request.body, dict(request.headers))
                    except refusal:
                        answers.append(False)
                    else:
                        answers.append(True)
            return answers

        added = run("add", "anna", "--webhook", f"{sink.url}/hook", "--json")
        old = json.loads(added)["webhook_secret"]
        assert "no rotation of 'anna' is under way" in refused("rotate-secret", "anna", "--finish")
        said = json.loads(run("rotate-secret", "anna", "--json"))
        new = said["webhook_secret"]
        assert said["valid_secrets"] == 2
        assert json.loads(run("show", "anna", "--json"))["webhook_secrets"] == 2
        assert accepted(old, new) == [True] * 4
        assert "is under way" in refused("rotate-secret", "anna")
        assert accepted(old, new) == [True] * 4
        assert "alone is valid" in run("rotate-secret", "anna", "--finish")
        assert accepted(old, new) == [False, False, True, True]
        assert new in str(kept().channels[0].secret)


def test_only_a_webhook_has_a_secret_to_rotate(run, refused):
    run("add", "anna", "--email", "a@example.org")
    assert "'anna' has no webhook" in refused("rotate-secret", "anna")
    assert "no subscriber 'ben'" in refused("rotate-secret", "ben")


def test_another_host_does_not_get_the_secret_that_the_old_one_knows(run, kept):
    run("add", "anna", *HOOK, "--json")
    old = kept().channels[0].secret
    same = json.loads(run("edit", "anna", "--webhook", "https://r.example/other", "--json"))
    assert (same["webhook_secret"], kept().channels[0].secret) == (None, old)
    moved = json.loads(run("edit", "anna", "--webhook", "https://s.example/hook", "--json"))
    assert moved["webhook_secret"] not in (None, old)
    assert kept().channels[0].secret == moved["webhook_secret"]
    run("edit", "anna", "--webhook", "https://t.example/hook", "--webhook-secret", str(old))
    assert kept().channels[0].secret == old, "who names a secret gets it"


def test_more_than_two_secrets_are_refused(run, refused):
    run("add", "anna", *HOOK)
    three = " ".join(f"whsec_{letter * 32}" for letter in "abc")
    assert "takes one secret, or two" in refused("edit", "anna", "--webhook-secret", three)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (DestinationForbidden("private"), "SCANHERALD_HTTP_ALLOW"),
        (DeliveryRejected("gone", status_code=410), "subscribers edit anna --webhook"),
        (RateLimited("slow", retry_after=30), "Wait 30 s"),
        (ChannelUnavailable("timeout"), "See that it answers"),
    ],
)
def test_a_refusal_says_what_to_do_and_exits_1(run, trial, error, advice):
    run("add", "anna", *HOOK)
    (answer,) = trial(error, status=1)
    assert not answer["accepted"]
    assert answer["error"] == str(error)
    assert advice in answer["do"]


def test_the_token_of_a_subscribers_mails_is_printed_and_checked(run, refused, monkeypatch):
    run("add", "anna", "--email", "anna@example.org")
    assert "SCANHERALD_UNSUBSCRIBE_KEY is not set" in refused("unsubscribe-token", "anna")
    monkeypatch.setenv("SCANHERALD_UNSUBSCRIBE_KEY", "k" * 32)
    monkeypatch.setenv("SCANHERALD_LIST_UNSUBSCRIBE_URL", "https://example.org/?t={token}")
    made = json.loads(run("unsubscribe-token", "anna", "--json"))
    assert made["link"] == f"https://example.org/?t={made['token']}"
    assert run("unsubscribe-token", "anna").strip() == made["token"]
    assert run("check-token", made["token"]).strip() == "anna"
    assert "was not made with" in refused("check-token", "YmVu.x")
    assert "no subscriber 'ben'" in refused("unsubscribe-token", "ben")


def test_a_sample_carries_the_link_of_its_subscriber(run, trial, light):
    run("add", "anna", "--email", "anna@example.org")
    trial(Receipt(status_code=250, text="ok"))
    (message,) = light.channel(ChannelKind.EMAIL).sent
    assert message.subscriber_id == "anna"


def test_a_channel_that_a_subscriber_does_not_have_is_named(run, refused):
    run("add", "anna", *HOOK)
    assert "it has: webhook" in refused("test", "anna", "--channel", "slack")


# Keys


def test_after_a_rekey_the_old_key_is_not_needed(run, light, monkeypatch):
    run("add", "anna", *HOOK)
    old = (light.settings.data_dir / "encryption.key").read_text().strip()
    new = Fernet.generate_key().decode()
    monkeypatch.setenv("SCANHERALD_ENCRYPTION_KEYS", f"{new},{old}")
    run("add", "ben", *HOOK)
    answer = json.loads(run("rekey", "--json"))
    assert answer["subscribers"] == {"sealed_again": 1, "kept": 2}
    assert json.loads(run("rekey", "--json"))["subscribers"]["sealed_again"] == 0
    with light.ledger.read() as connection:
        assert len(list_subscribers(connection, SecretBox([new]))) == 2
    monkeypatch.setenv("SCANHERALD_ENCRYPTION_KEYS", new)
    assert "0 of 2 encrypted again" in run("rekey")
