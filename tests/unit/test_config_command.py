"""``config show`` and the checks that need no server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from typer.testing import CliRunner

from cli.main import app
from cli.masking import masked_url
from listener.config_check import check_all, unknown_variables
from listener.unreachable import (
    NO_DATABASE,
    NO_HOST,
    NO_TLS,
    OTHER_SERVER,
    PASSWORD,
    REFUSED,
    UNTRUSTED,
    WANTS_TLS,
    reason_of,
)
from schemas.errors import LedgerUnavailable
from schemas.health import PartHealth, State
from schemas.settings import Settings, load_settings
from tasks.wiring import Wiring, wire

SECRET = "hush-hush-hush-hush-hush-hush-hush"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SCANHERALD_") or name.endswith("_URL"):
            monkeypatch.delenv(name)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["config", *arguments], env={"COLUMNS": "250"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hush@host:6379/0", "redis://:***@host:6379/0"),
        (
            "postgresql://u:hush@host/db?sslmode=require",
            "postgresql://u:***@host/db?sslmode=require",
        ),
        ("postgresql:///db?user=u&password=hush", "postgresql:///db?user=u&password=***"),
        ("amqp://u:hush@a//;amqp://v:hush@b//", "amqp://u:***@a//;amqp://v:***@b//"),
        (
            "rediss://u:hush@h/0?ssl_keyfile_password=hush",
            "rediss://u:***@h/0?ssl_keyfile_password=***",
        ),
        ("postgresql://u:hush@hush@host/db", "postgresql://u:***@host/db"),
        ("postgresql://u:hu/sh@host/db", "postgresql://u:***@host/db"),
        ("amqp://u:hush;hush@a//", "amqp://u:***@a//"),
        ("https://user@host/path", "https://user@host/path"),
        ("file:///srv/artifacts", "file:///srv/artifacts"),
        ("plain: no@url", "plain: no@url"),
    ],
)
def test_a_password_in_a_url_is_masked_and_nothing_else(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_show_names_each_settings_value_and_origin_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_text(SECRET)
    monkeypatch.setenv("SCANHERALD_UNSUBSCRIBE_KEY_FILE", str(path))
    monkeypatch.setenv("SCANHERALD_SMTP_PASSWORD", SECRET)
    monkeypatch.setenv("SCANHERALD_ENCRYPTION_KEYS", f"{SECRET},{SECRET}")
    monkeypatch.setenv("SCANHERALD_SIGNING_KEY", SECRET)
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@elsewhere/0")
    rows = {row["setting"]: row for row in json.loads(run("show", "--json").stdout)}
    assert len(rows) == len(Settings.model_fields)
    assert rows["SCANHERALD_UNSUBSCRIBE_KEY"] == {
        "setting": "SCANHERALD_UNSUBSCRIBE_KEY",
        "value": "***",
        "from": f"SCANHERALD_UNSUBSCRIBE_KEY_FILE ({path})",
    }
    assert rows["SCANHERALD_ENCRYPTION_KEYS"]["value"] == ["***", "***"]
    assert rows["REDIS_URL"]["value"] == "redis://:***@elsewhere/0"
    assert rows["SCANHERALD_BATCH_ENTRIES"]["from"] == "default"
    for arguments in (["show"], ["show", "--all"], ["show", "--json"]):
        said = run(*arguments)
        assert said.exit_code == 0
        assert "hush" not in said.output
        assert "REDIS_URL" in said.output
    assert "SCANHERALD_BATCH_ENTRIES" not in run("show").output


def found(parts: Wiring, environment: dict[str, str] | None = None) -> dict[str, PartHealth]:
    return {part.part: part for part in check_all(parts, environment or {})}


def test_a_check_before_the_first_start_makes_nothing(tmp_path: Path) -> None:
    parts = wire(load_settings(data_dir=tmp_path / "data", redis_url="redis://127.0.0.1:1/0"))
    lines = found(parts)
    for name in ("DATABASE_URL", "ARTIFACTS_URL", "encryption keys", "signing key", "folders"):
        assert lines[name].state is State.DEGRADED
        assert "the first start makes it" in lines[name].do
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = load_settings(data_dir=tmp_path / "file" / "data", redis_url="redis://127.0.0.1:1/0")
    lines = found(wire(settings))
    assert lines["DATABASE_URL"].state is State.DOWN
    assert "may not make it" in lines["DATABASE_URL"].says


def test_the_schema_is_compared_with_this_releases(make_parts: Any) -> None:
    parts = make_parts()

    def at(revision: str) -> PartHealth:
        with parts.ledger.write() as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = :it"), {"it": revision}
            )
        return found(parts)["DATABASE_URL"]

    assert found(parts)["DATABASE_URL"].state is State.HEALTHY
    older = at("0003")
    assert (older.state, "schema is 0003" in older.says) == (State.DEGRADED, True)
    newer = at("9999")
    assert (newer.state, "newer than this release" in newer.says) == (State.DOWN, True)


def test_keys_are_tried_on_what_they_sealed(make_parts: Any, subscribe: Any) -> None:
    parts = make_parts()
    subscribe(parts, "one")
    keys = found(parts)["encryption keys"]
    assert (keys.state, "1 sealed addresses" in keys.says) == (State.HEALTHY, True)
    path = parts.settings.data_dir / "encryption.key"
    path.chmod(0o644)
    assert "mode 0644" in found(parts)["encryption keys"].says
    other = make_parts(encryption_keys=Fernet.generate_key().decode())
    lost = found(other)["encryption keys"]
    assert lost.state is State.DOWN
    assert "1 of 1 sealed addresses fit none of the keys" in lost.says
    path.unlink()
    missing = found(make_parts())["encryption keys"]
    assert (missing.state, "1 of 1" in missing.says) == (State.DOWN, True)
    assert not path.exists()
    bad = found(make_parts(encryption_keys="short", signing_key="short"))
    assert bad["encryption keys"].state is bad["signing key"].state is State.DOWN
    assert "short" not in bad["signing key"].says


def test_combinations_that_start_and_do_not_do_what_was_meant_are_warned_of(
    tmp_path: Path,
) -> None:
    settings = load_settings(
        data_dir=tmp_path,
        redis_url="redis://127.0.0.1:1/0",
        crash_dir=tmp_path,
        list_unsubscribe_url="http://example.org",
        rule_packs_dir=tmp_path / "none",
        language="xx",
    )
    lines = found(wire(settings), {"SCANHERALD_STREEMS": "a", "SCANHERALD_TEST_SEED": "7"})
    assert "SCANHERALD_STREAMS is meant?" in lines["settings"].says
    assert "SCANHERALD_CRASH_DIR" in lines["settings"].says
    assert "not https" in lines["settings"].says
    assert "is not there" in lines["folders"].says
    assert lines["reports"].state is State.DOWN


def test_every_variable_of_ours_is_known() -> None:
    assert list(unknown_variables({"SCANHERALD_REDIS_URL_FILE": "x", "PATH": "y"})) == []
    assert list(unknown_variables({"SCANHERALD_ZZZ": "x"})) == [("SCANHERALD_ZZZ", None)]


def test_settings_that_cannot_be_used_are_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_SMTP_PORT", "0")
    said = run("check", "--json")
    assert said.exit_code == 1
    (line,) = json.loads(said.stdout)["checks"]
    assert (line["check"], line["result"]) == ("settings", "failed")
    assert "SCANHERALD_SMTP_PORT" in line["says"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('connection failed: FATAL:  password authentication failed for user "u"', PASSWORD),
        ("fe_sendauth: no password supplied", PASSWORD),
        ('FATAL:  database "nope" does not exist', NO_DATABASE),
        ("connection failed: server does not support SSL, but SSL was required", NO_TLS),
        ("SSL error: certificate verify failed", UNTRUSTED),
        ('server certificate for "a" does not match host name "b"', UNTRUSTED),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", no encryption', WANTS_TLS),
        ("[Errno -2] Name or service not known", NO_HOST),
        ("received invalid response to SSL negotiation: H", OTHER_SERVER),
        ("connection to server at 127.0.0.1, port 1 failed: Connection refused", REFUSED),
        ("(0, 0): (403) ACCESS_REFUSED - Login was refused", PASSWORD),
        ("ledger: the database is locked", None),
    ],
)
def test_what_libraries_say_is_known_by_its_words(said: str, reason: Any) -> None:
    assert reason_of(LedgerUnavailable(f"ledger: {said}")) is reason
