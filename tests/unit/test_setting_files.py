"""Settings from files: what counts, what is refused, and that no value is ever shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.embedded import service_parts
from schemas.errors import InvalidSettings
from schemas.setting_files import MAX_BYTES
from schemas.settings import Settings, environment_name, load_settings, origin_of, reads_a_file

IN_FILES = [field for field in Settings.model_fields if reads_a_file(field)]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SCANHERALD_") or name.removesuffix("_FILE") in (
            "REDIS_URL",
            "CELERY_BROKER_URL",
            "DATABASE_URL",
        ):
            monkeypatch.delenv(name)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("redis://:hush@elsewhere/0\n")
    return path


@pytest.mark.parametrize("field", IN_FILES)
def test_every_setting_is_read_from_its_file(
    field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "value"
    path.write_text("nothing-like-it\n")
    monkeypatch.setenv(f"{environment_name(field)}_FILE", str(path))
    try:
        changed = getattr(load_settings(), field) != getattr(Settings.model_construct(), field)
    except InvalidSettings as error:
        changed = environment_name(field) in str(error)
    assert changed


def test_one_newline_at_the_end_is_not_the_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    monkeypatch.setenv("SCANHERALD_SMTP_PASSWORD_FILE", str(path))
    for written, read in [
        (b"hush", "hush"),
        (b"hush\n", "hush"),
        (b"hush\r\n", "hush"),
        (b" hush\n\n", " hush\n"),
        ("pässwört\n".encode(), "pässwört"),
    ]:
        path.write_bytes(written)
        password = load_settings().smtp_password
        assert password is not None
        assert password.get_secret_value() == read


def test_a_list_comes_from_a_file_as_from_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text("new,old\n")
    monkeypatch.setenv("SCANHERALD_ENCRYPTION_KEYS_FILE", str(path))
    assert [key.get_secret_value() for key in load_settings().encryption_keys] == ["new", "old"]


def test_a_url_comes_from_a_file_under_either_name(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REDIS_URL_FILE", "SCANHERALD_REDIS_URL_FILE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(secret))
            assert load_settings().redis_url == "redis://:hush@elsewhere/0"
            assert origin_of("redis_url", os.environ) == name


@pytest.mark.parametrize(
    "other", ["REDIS_URL", "SCANHERALD_REDIS_URL", "SCANHERALD_REDIS_URL_FILE"]
)
def test_a_file_beside_the_variable_itself_is_refused(
    secret: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    monkeypatch.setenv(other, "redis://:hush@there/0")
    with pytest.raises(InvalidSettings) as refused:
        load_settings()
    assert str(refused.value).endswith("are both given: keep one")
    assert "REDIS_URL_FILE" in str(refused.value)
    assert other in str(refused.value)
    assert "hush" not in str(refused.value)


def test_an_empty_variable_leaves_the_word_to_the_file_and_an_empty_file_name_to_the_variable(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    assert load_settings().redis_url == "redis://:hush@elsewhere/0"
    monkeypatch.setenv("REDIS_URL", "redis://there/0")
    monkeypatch.setenv("REDIS_URL_FILE", "")
    assert load_settings().redis_url == "redis://there/0"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hush\xff", "is not UTF-8"),
        (b"hush" * (MAX_BYTES // 4) + b"h", "more than 64 KiB"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_not_shown(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    monkeypatch.setenv("SCANHERALD_SIGNING_KEY_FILE", str(path))
    with pytest.raises(InvalidSettings) as refused:
        load_settings()
    assert f"SCANHERALD_SIGNING_KEY_FILE ({path}): " in str(refused.value)
    assert words in str(refused.value)
    assert "hush" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_missing_files_and_folders_are_all_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SCANHERALD_SMTP_PASSWORD_FILE", str(tmp_path))
    with pytest.raises(InvalidSettings) as refused:
        load_settings()
    assert "DATABASE_URL_FILE" in str(refused.value)
    assert "No such file" in str(refused.value)
    assert "SCANHERALD_SMTP_PASSWORD_FILE" in str(refused.value)
    assert "Is a directory" in str(refused.value)


def test_a_bad_value_in_a_file_is_refused_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "url"
    path.write_text("http://:hush@host")
    monkeypatch.setenv("REDIS_URL_FILE", str(path))
    with pytest.raises(InvalidSettings, match="begins with redis://") as refused:
        load_settings()
    assert "hush" not in str(refused.value)


def test_what_the_caller_says_wins_over_a_file(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    assert load_settings(redis_url="redis://override/0").redis_url == "redis://override/0"


def test_a_part_is_not_told_its_url_by_a_file_as_well(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    monkeypatch.setenv("SCANHERALD_SMTP_PASSWORD_FILE", str(secret))
    for part in service_parts({"REDIS_URL": "redis://127.0.0.1:1/0"}, 1, None):
        assert "REDIS_URL_FILE" not in part.environment
        assert part.environment["SCANHERALD_SMTP_PASSWORD_FILE"] == str(secret)
