"""Settings: names, lists, precedence, and silence about secrets."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.errors import InvalidSettings
from schemas.reports import DEFAULT_FORMATS, Format, Severity
from schemas.settings import Settings, environment_name, load_settings

OPENTELEMETRYS = {"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"}
URLS = {"REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "DATABASE_URL", "ARTIFACTS_URL"}
NAMES = {field: environment_name(field) for field in Settings.model_fields}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES.values():
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"SCANHERALD_{name}", raising=False)


def test_the_five_urls_and_tracing_have_their_usual_names_and_the_rest_our_prefix() -> None:
    usual = {name for name in NAMES.values() if not name.startswith("SCANHERALD_")}
    assert usual == URLS | OPENTELEMETRYS | {"NOTIFY_SOCKET"}
    assert NAMES["batch_entries"] == "SCANHERALD_BATCH_ENTRIES"


@pytest.mark.parametrize("field", list(NAMES))
def test_every_setting_is_read_from_its_variable(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAMES[field], "nothing-like-it")
    try:
        changed = getattr(load_settings(), field) != getattr(Settings.model_construct(), field)
    except InvalidSettings as error:
        changed = NAMES[field] in str(error)
    assert changed


@pytest.mark.parametrize("name", sorted(URLS))
def test_a_url_is_also_read_under_our_prefix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SCANHERALD_{name}", "redis://somewhere")
    assert getattr(load_settings(), name.lower()) == "redis://somewhere"


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_STREAMS", "scans:a, scans:b,")
    monkeypatch.setenv("SCANHERALD_FORMATS", "csv,pdf,csv")
    monkeypatch.setenv("SCANHERALD_DELIVERY_SCHEDULE_S", "0,1.5")
    monkeypatch.setenv("SCANHERALD_DATAREF_FILE_ROOTS", "/srv/scans")
    monkeypatch.setenv("SCANHERALD_ENCRYPTION_KEYS", "new,old")
    settings = load_settings()
    assert settings.streams == ("scans:a", "scans:b")
    assert settings.formats == (Format.CSV, Format.PDF)
    assert settings.delivery_schedule_s == (0.0, 1.5)
    assert settings.dataref_file_roots == (Path("/srv/scans"),)
    assert [key.get_secret_value() for key in settings.encryption_keys] == ["new", "old"]


def test_a_token_in_the_unsubscribe_address_needs_a_key_to_make_it() -> None:
    url = {"list_unsubscribe_url": "https://example.org/stop?t={token}"}
    with pytest.raises(InvalidSettings, match="SCANHERALD_UNSUBSCRIBE_KEY is needed"):
        load_settings(**url)
    with pytest.raises(InvalidSettings, match="SCANHERALD_UNSUBSCRIBE_KEY: "):
        load_settings(**url, unsubscribe_key="k" * 31)
    assert load_settings(**url, unsubscribe_key="k" * 32).unsubscribe_key is not None


def test_an_empty_list_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_DELIVERY_SCHEDULE_S", "")
    assert load_settings().delivery_schedule_s == ()


def test_overrides_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://environment/0")
    monkeypatch.setenv("SCANHERALD_BATCH_ENTRIES", "7")
    settings = load_settings(redis_url="redis://override/0", batch_entries=8)
    assert (settings.redis_url, settings.batch_entries) == ("redis://override/0", 8)


def test_a_foreign_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_NO_SUCH_THING", "1")
    monkeypatch.setenv("STREAMS", "not-ours")
    assert load_settings().streams == ("scans:events",)


def test_the_defaults_stand_without_any_environment() -> None:
    settings = load_settings()
    assert settings.formats == DEFAULT_FORMATS
    assert settings.violation_severity is Severity.HIGH
    assert settings.broker_url == settings.result_backend == settings.redis_url


def test_the_embedded_stores_lie_in_the_data_folder(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    assert settings.ledger_url == f"sqlite:///{tmp_path}/ledger.sqlite3"
    assert settings.artifact_store_url == (tmp_path / "artifacts").as_uri()


def test_an_engine_is_changed_by_its_url() -> None:
    settings = load_settings(
        celery_broker_url="amqp://broker//",
        celery_result_backend="redis://results/1",
        database_url="postgresql+psycopg://ledger/scanherald",
        artifacts_url="s3://bucket/reports",
    )
    assert settings.broker_url == "amqp://broker//"
    assert settings.result_backend == "redis://results/1"
    assert settings.ledger_url == "postgresql+psycopg://ledger/scanherald"
    assert settings.artifact_store_url == "s3://bucket/reports"


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().batch_entries = 9


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("SCANHERALD_BATCH_ENTRIES", "many", "SCANHERALD_BATCH_ENTRIES: "),
        ("SCANHERALD_BLOCK_MS", "5000", "SCANHERALD_BLOCK_MS: "),
        ("SCANHERALD_FORMATS", "pdf,docx", "SCANHERALD_FORMATS item 2: "),
        ("SCANHERALD_DELIVERY_SCHEDULE_S", "1,-1", "SCANHERALD_DELIVERY_SCHEDULE_S item 2: "),
        ("SCANHERALD_SMTP_SECURITY", "ssl", "SCANHERALD_SMTP_SECURITY: "),
        ("SCANHERALD_HTTP_TIMEOUT_S", "inf", "SCANHERALD_HTTP_TIMEOUT_S: "),
        ("SCANHERALD_LOG_LEVEL", "LOUD", "SCANHERALD_LOG_LEVEL: "),
    ],
)
def test_a_bad_value_is_refused_with_its_variable(
    name: str, value: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match="^settings: " + place):
        load_settings()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task_soft_time_limit_s": 300}, "SOFT_TIME_LIMIT_S .300. must be below"),
        ({"task_time_limit_s": 600, "delivery_lease_s": 900}, "SCANHERALD_VISIBILITY_TIMEOUT_S"),
        ({"retry_max_s": 600}, "SCANHERALD_RETRY_MAX_S"),
        ({"delivery_lease_s": 299}, "at most SCANHERALD_DELIVERY_LEASE_S .299"),
        ({"reports_low_water": 1000}, "SCANHERALD_REPORTS_HIGH_WATER"),
    ],
)
def test_numbers_that_would_lose_or_repeat_work_together_are_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidSettings, match=words):
        load_settings(**settings)


def test_another_broker_than_redis_gives_nothing_away_by_time() -> None:
    settings = load_settings(
        celery_broker_url="amqp://broker//", task_time_limit_s=3600, delivery_lease_s=3600
    )
    assert settings.task_time_limit_s > settings.visibility_timeout_s


@pytest.mark.parametrize(("low", "mark"), [(None, 50), (0, 0), (199, 199)])
def test_the_low_water_mark_is_a_quarter_of_the_high_one_unless_set(
    low: int | None, mark: int
) -> None:
    assert load_settings(reports_high_water=200, reports_low_water=low).low_water == mark


def test_every_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_SMTP_PORT", "0")
    with pytest.raises(InvalidSettings, match=r"DATABASE_URL: .*; SCANHERALD_SMTP_PORT: "):
        load_settings(database_url=3)


def test_the_log_level_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_LOG_LEVEL", "debug")
    assert load_settings().log_level == "DEBUG"


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("REDIS_URL", "hush", "begins with redis://"),
        ("REDIS_URL", "http://:hush@host", "begins with redis://"),
        ("REDIS_URL", "redis://:hush#hush@host/0", "percent-encode"),
        ("REDIS_URL", "redis://:hush@[::1/0", "percent-encode"),
        ("CELERY_BROKER_URL", "amqp://u:hush/hush@host//", "percent-encode"),
        ("CELERY_BROKER_URL", "amqp://u:a@host//;amqp://u:hush?hush@host//", "percent-encode"),
        ("CELERY_RESULT_BACKEND", "redis://:hush?hush@host/0", "percent-encode"),
    ],
)
def test_a_url_that_a_library_would_quote_in_its_error_is_refused_here(
    name: str, url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(InvalidSettings, match=words) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "hush" not in f"{caught.value} {caught.value.__cause__}"


def test_no_secret_shows_in_a_repr_or_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*URLS, "SCANHERALD_SMTP_PASSWORD", "SCANHERALD_ENCRYPTION_KEYS"):
        monkeypatch.setenv(name, "redis://user:hush@host/0")
    settings = load_settings()
    assert settings.smtp_password is not None
    assert "hush" in settings.smtp_password.get_secret_value()
    assert "hush" not in f"{settings!r} {settings}"
    monkeypatch.setenv("SCANHERALD_SMTP_PORT", "hush")
    with pytest.raises(InvalidSettings) as caught:
        load_settings()
    assert "hush" not in "".join(traceback.format_exception(caught.value))
