"""Every setting, typed, with its default and its reason.

Read once by ``load_settings`` where a process starts, then passed on; nothing
else reads the environment.  The five URLs have their usual names, everything
else is prefixed ``SCANHERALD_``.  Each may come from a file instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from schemas.errors import InvalidSettings
from schemas.reports import DEFAULT_FORMATS, Format, Severity
from schemas.servers import is_sentinel, parse_sentinel, verified
from schemas.setting_files import given_by, values_from_files

PREFIX = "SCANHERALD_"


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _distinct(formats: tuple[Format, ...]) -> tuple[Format, ...]:
    return tuple(dict.fromkeys(formats))


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], NoDecode, BeforeValidator(_split)]
"""Several values in one variable, separated by commas."""


def _pair(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    glob, _, code = (part.strip() for part in value.partition("="))
    if not (glob and code):
        raise ValueError("not a glob and a language, such as *.de=de")
    return glob, code


DomainLanguage = Annotated[tuple[str, str], BeforeValidator(_pair)]
"""A glob of domains and the language of their reports, written ``GLOB=CODE``."""


HTTP_SERVICES: tuple[str, ...] = _split(
    "dingtalk, discord, feishu, form, forms, gchat, gotify, gotifys, ifttt, ilert, incidentio, "
    "json, jsons, lark, line, matrix, matrixs, mmost, mmosts, ntfy, ntfys, opsgenie, pagerduty, "
    "pagertree, pbul, pover, rocket, rockets, signl4, spike, splunk, squadcast, tgram, twilio, "
    "workflows, wxteams, xml, xmls, zulip"
)
"""Apprise's better-known services; the tests drive each through the guarded transport."""


def _url(name: str) -> Any:
    """An environment variable with its usual name, or the same under our prefix."""
    return AliasChoices(name, PREFIX + name)


class Settings(BaseSettings):
    """The configuration of one process.  Immutable once read."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,  # the bad value may be a secret
        allow_inf_nan=False,
    )

    # Engines
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        validation_alias=_url("REDIS_URL"),
        repr=False,  # it may hold a password
        description="Redis or Valkey that carries the event stream: redis://, rediss:// with "
        "TLS, or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB; see docs/brokers.md.",
    )
    celery_broker_url: str | None = Field(
        None,
        validation_alias=_url("CELERY_BROKER_URL"),
        repr=False,  # it may hold a password
        description="Celery's broker: amqp:// or amqps:// (RabbitMQ), or as REDIS_URL; REDIS_URL "
        "when empty.",
    )
    celery_result_backend: str | None = Field(
        None,
        validation_alias=_url("CELERY_RESULT_BACKEND"),
        repr=False,  # it may hold a password
        description="Celery's result backend, a Redis or Valkey too; REDIS_URL when empty.",
    )
    data_dir: Path = Field(
        Path("scanherald-data"),
        description="Folder of the embedded defaults: ledger, artifacts, keys, server data.",
    )
    heartbeats_dir: Path | None = Field(
        None,
        description="Folder of the heartbeat files that health reads, on this machine's disk; "
        "in data_dir when empty.",
    )
    database_url: str | None = Field(
        None,
        validation_alias=_url("DATABASE_URL"),
        repr=False,  # it may hold a password
        description="Ledger; a SQLite file in data_dir when empty.",
    )
    ledger_connections: int = Field(
        5,
        ge=2,
        description="Connections to PostgreSQL that one process holds at most; "
        "a process of a worker's pool needs one or two.",
    )
    artifacts_url: str | None = Field(
        None,
        validation_alias=_url("ARTIFACTS_URL"),
        repr=False,  # it may hold a password
        description="Artifact store: file:///path, s3://, gs:// or az://; "
        "a folder in data_dir when empty.",
    )

    # Stream
    streams: Listed[str] = Field(
        ("scans:events",), description="Streams to consume, separated by commas."
    )
    consumer_group: str = Field("scanherald", description="Consumer group.")
    consumer_name: str | None = Field(
        None, description="This listener's consumer name; host name and process id when empty."
    )
    batch_entries: int = Field(50, ge=1, le=1000, description="Entries read at most per batch.")
    batch_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Bytes aimed at per batch: COUNT adapts to it."
    )
    block_ms: int = Field(2000, ge=10, le=4000, description="How long one read waits, ms.")
    claim_idle_ms: int = Field(
        60_000,
        ge=100,
        description="Idle time after which another consumer's entry is claimed, ms; "
        "above the longest batch, so above the 20 s that a SQLite writer waits.",
    )
    consumer_idle_s: float = Field(
        3600.0,
        gt=0,
        description="A consumer silent for so long and with nothing pending is removed, s.",
    )
    stream_retention_s: float = Field(
        86_400.0,
        ge=0,
        description="Entries that every group has acknowledged are kept this long, s; "
        "older ones are trimmed, never one that some group has not finished.",
    )
    housekeeping_s: float = Field(
        60.0, gt=0, description="How often a listener trims and removes idle consumers, s."
    )
    together_bytes: int = Field(
        524_288,
        ge=0,
        description="A scan of at most so many bytes is one task for all formats and its end; "
        "0: a chord with a task for each, where there are several.",
    )
    reports_high_water: int = Field(
        1000, ge=1, description="Waiting report tasks at which listeners stop reading."
    )
    reports_low_water: int | None = Field(
        None,
        ge=0,
        description="Waiting report tasks at which they read on; a quarter of the high-water mark "
        "when empty.",
    )
    poison_deliveries: int = Field(
        5, ge=2, description="Deliveries of an entry after which it is taken alone."
    )
    max_entry_bytes: int = Field(16 * 1024 * 1024, ge=1024, description="Largest entry or dataref.")
    max_cookies: int = Field(
        50_000, ge=1, description="Cookies a report shows; more are counted and marked."
    )
    max_string_bytes: int = Field(8 * 1024, ge=64, description="Longer strings are cut and marked.")

    # dataref
    dataref_timeout_s: float = Field(10.0, gt=0, description="Time for one fetch of a dataref, s.")
    dataref_file_roots: Listed[Path] = Field(
        (), description="Folders that file: datarefs may point into, separated by commas."
    )

    dataref_buckets: Listed[str] = Field(
        (),
        description="Buckets that s3:, gs: and az: datarefs may point into, such as s3://scans, "
        "separated by commas.",
    )

    # Runs
    formats: Annotated[Listed[Format], AfterValidator(_distinct)] = Field(
        DEFAULT_FORMATS, description="Formats rendered for each scan, separated by commas."
    )
    language: str = Field("en", description="Language of reports and messages.")
    domain_languages: Listed[DomainLanguage] = Field(
        (),
        description="Languages by domain, such as *.de=de,*.example.fr=fr: the first glob that "
        "matches wins over the language above.",
    )
    branding: Path | None = Field(
        None,
        description="TOML file of the reports' look: organisation, footer, accent, cover, logo, "
        "html_template, stylesheet. Read at start and kept with every run.",
    )
    csv_bom: bool = Field(
        False, description="Begin CSV with a byte order mark, for spreadsheets that need it."
    )
    rule_pack: str = Field(
        "eu-baseline",
        description="Rule pack that judges new scans: an id for its newest version, or id-version.",
    )
    rule_packs_dir: Path | None = Field(
        None, description="Folder of your own rule packs, known beside the shipped ones."
    )
    run_deadline_s: float = Field(
        900.0, gt=0, description="A run not settled by then is dispatched again, s."
    )
    starting_grace_s: float = Field(
        60.0,
        gt=0,
        description="How long recorded work is left to the message that starts it before the sweep "
        "publishes it again, s.",
    )
    run_max_attempts: int = Field(5, ge=1, description="Dispatches of a run before it is dead.")
    render_max_tries: int = Field(
        4, ge=1, description="Starts of one format in one run before it is given up as poison."
    )
    sweep_interval_s: float = Field(60.0, gt=0, description="Beat's sweep, s.")
    sweep_batch: int = Field(500, ge=1, description="Rows one sweep takes at most of each kind.")

    # Celery
    task_time_limit_s: int = Field(300, ge=1, description="A task is killed after this, s.")
    task_soft_time_limit_s: int = Field(270, ge=1, description="A task is asked to end, s.")
    task_max_retries: int = Field(3, ge=0, description="Fast retries of a task.")
    retry_max_s: float = Field(60.0, gt=0, description="Longest fast retry delay, s.")
    visibility_timeout_s: int = Field(
        600,
        ge=1,
        description="Redis gives an unacknowledged task to another worker after this; "
        "must exceed every time limit and countdown, s.",
    )
    result_expires_s: int = Field(86_400, ge=60, description="Task results are kept this long, s.")

    # Notifications
    violation_severity: Severity = Field(
        Severity.HIGH, description="Findings from here on make a compliance.violation event."
    )
    violation_reminder_s: float = Field(
        604_800.0,
        ge=0,
        description="A violation that is still found is told again after this, s; 0: never.",
    )
    anomaly_added_cookies: int = Field(
        20,
        ge=1,
        description="Cookies that neither of the two scans before had, and that make an anomaly.",
    )
    anomaly_removed_cookies: int = Field(
        20,
        ge=1,
        description="Cookies missing in two scans in a row that make an anomaly.",
    )
    anomaly_new_third_parties: int = Field(
        5,
        ge=1,
        description="Third-party domains that the domain's earlier scans did not have, and that "
        "make an anomaly.",
    )
    anomaly_score_drop: int = Field(
        15, ge=1, description="Points lost since the scan before that make an anomaly."
    )
    delivery_lease_s: float = Field(
        330.0, gt=0, description="A delivery in hand longer than this is taken up again, s."
    )
    delivery_schedule_s: Listed[NonNegativeFloat] = Field(
        (300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0),
        description="Delays after the fast retries, as due times in the ledger, s, "
        "separated by commas; then the delivery has failed.",
    )
    destination_per_s: float = Field(
        20.0,
        ge=0,
        description="Sends to one destination (a host and port, or the mail server) per second, "
        "beyond the burst; 0: no limit.",
    )
    destination_burst: int = Field(
        50, ge=1, description="Sends to one destination that need not wait for each other."
    )
    destination_in_flight: int = Field(
        1,
        ge=0,
        description="Sends to one host under way at once, over all workers: fewer than their "
        "processes together, so that a host that hangs leaves some to the others; 0: no limit.",
    )
    smtp_in_flight: int = Field(
        4, ge=0, description="The same for the mail server, which everybody's e-mail passes."
    )
    slack_per_s: float = Field(
        1.0, ge=0, description="Messages to one Slack webhook per second; 0: no limit."
    )
    slack_burst: int = Field(1, ge=1, description="The same that need not wait for each other.")
    subscriber_per_min: float = Field(
        60.0,
        ge=0,
        description="Messages to one subscriber's address per minute, beyond the burst; "
        "0: no limit.",
    )
    subscriber_burst: int = Field(
        100, ge=1, description="Messages to one address that need not wait for each other."
    )
    silence_max_s: float = Field(
        600.0,
        gt=0,
        description="A destination that does not answer is looked at again after at most this, s.",
    )
    bulk_max_users: int = Field(
        100_000,
        ge=1,
        description="Users that one send_bulk_notifications_async may name; more are refused.",
    )
    endpoint_max_failing_s: float = Field(
        432_000.0,
        gt=0,
        description="An address that has failed for so long without one good answer is disabled, "
        "s.",
    )
    public_url: str | None = Field(
        None, description="Base address under which readers reach the artifacts, for links."
    )
    link_expires_s: int = Field(
        604_800,
        ge=0,
        le=604_800,
        description="How long a link to an artifact in a bucket is good, s, seven days at most; "
        "whoever has the link can read it. 0: messages name the bucket's URI.",
    )
    http_timeout_s: float = Field(
        10.0, gt=0, description="Time for one webhook, Slack or Apprise call, s."
    )
    http_allow: Listed[str] = Field(
        (),
        description="Destinations exempt from the guard (host or host:port), also by plain "
        "http; separated by commas.",
    )
    apprise_schemes: Listed[str] = Field(
        HTTP_SERVICES,
        description="Services of Apprise that subscribers may name, by the scheme of their URL, "
        "separated by commas; only such as speak HTTP can work.",
    )
    smtp_host: str | None = Field(None, description="Mail server; without it e-mail is off.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Mail server's port.")
    smtp_security: str = Field(
        "starttls",
        pattern="^(starttls|tls|none)$",
        description="starttls, tls (implicit) or none (a local relay only).",
    )
    smtp_username: str | None = Field(None, description="Mail server's user.")
    smtp_password: SecretStr | None = Field(None, description="Mail server's password.")
    smtp_timeout_s: float = Field(15.0, gt=0, description="Time for one mail server answer, s.")
    mail_from: str = Field("scanherald@localhost", description="Sender of e-mails.")
    mail_max_attachment_bytes: int = Field(
        5 * 1024 * 1024,
        ge=0,
        description="Artifacts attached to one e-mail, all together, bytes; others are links.",
    )
    templates_dir: Path | None = Field(
        None, description="Folder of your own message templates; see docs/notifications.md."
    )
    list_unsubscribe_url: str | None = Field(
        None,
        description="https address for List-Unsubscribe; no header when empty. With {token} in "
        "it, it names the subscriber and mail clients may post to it.",
    )

    # Retention
    reports_retention_days: int = Field(
        30, ge=0, description="Artifacts older than this are deleted at night, days; 0: never."
    )
    notifications_retention_days: int = Field(
        30,
        ge=0,
        description="Settled deliveries, their attempts, what was said in them, ended replays and "
        "kept figures older than this are deleted at night, days; 0: never. Event keys stay.",
    )
    scans_retention_days: int = Field(
        365,
        ge=0,
        description="Bytes of scans older than this are deleted at night, days; 0: never. Scores "
        "stay; such a scan can be neither rendered nor judged nor replayed again.",
    )
    events_retention_days: int = Field(
        0,
        ge=0,
        description="Records of events older than this (event, run, scan, reports, dead letter) "
        "are reduced at night to their bare identity, days; 0: never.",
    )
    keep_newest_scans: int = Field(
        1,
        ge=0,
        description="So many of each domain's newest scans keep their reports, however old.",
    )

    # Secrets
    encryption_keys: Listed[SecretStr] = Field(
        (),
        description="Fernet keys that protect subscribers' secrets, newest first, separated "
        "by commas; a key file in data_dir when empty.",
    )
    signing_key: SecretStr | None = Field(
        None,
        description="Ed25519 private key that signs evidence bundles: PEM, or base64 of its "
        "32 bytes; a key file in data_dir when empty.",
    )

    unsubscribe_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Key of the {token} in list_unsubscribe_url, 32 characters or more, shared "
        "with the endpoint that checks it; see docs/notifications.md.",
    )

    # Monitoring
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port on which a listener serves its metrics; 0: none."
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Its address; 0.0.0.0 in a container of its own."
    )
    task_events: bool = Field(
        False,
        description="Workers and publishers send Celery's task events, which Flower shows; they "
        "cost a worker some 5 % of its CPU and a listener some 20 %.",
    )

    otel_traces_exporter: str | None = Field(
        None,
        pattern="^(otlp|console|none)?$",
        validation_alias=_url("OTEL_TRACES_EXPORTER"),
        description="Tracing, with the extra `otel`: otlp (over HTTP), console or none. "
        "OpenTelemetry's other variables (OTEL_EXPORTER_OTLP_*, OTEL_TRACES_SAMPLER, "
        "OTEL_SERVICE_NAME, …) count as its SDK documents them; see docs/tracing.md.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        validation_alias=_url("OTEL_EXPORTER_OTLP_ENDPOINT"),
        repr=False,  # it may hold a password
        description="Where traces are sent; set, it turns tracing on.",
    )
    otel_sdk_disabled: bool = Field(
        False, validation_alias=_url("OTEL_SDK_DISABLED"), description="Turns tracing off."
    )

    # Health
    health_timeout_s: float = Field(
        5.0, gt=0, description="How long one check of `scanherald health` may take, s."
    )
    health_lag_s: float = Field(
        120.0,
        gt=0,
        description="Age of the oldest unfinished stream entry from which Redis counts as "
        "degraded, s.",
    )

    notify_socket: str | None = Field(
        None,
        validation_alias=_url("NOTIFY_SOCKET"),
        description="Where systemd hears from a part that a unit of Type=notify runs; set by it.",
    )

    # Fault tests
    crash_dir: Path | None = Field(
        None,
        description="For fault tests only: processes that find a token of a crash point in this "
        "folder kill themselves there. Leave it empty.",
    )

    # Logs
    log_level: Annotated[str, BeforeValidator(_upper)] = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."
    )
    log_format: str = Field(
        "auto",
        pattern="^(auto|console|json)$",
        description="console, json, or auto: console on a terminal, json otherwise.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  there is none
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  ours say which file
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller says wins over files, files over variables, which must be empty then."""
        files = values_from_files(_file_variables(), os.environ)
        return init_settings, InitSettingsSource(settings_cls, files), env_settings

    @field_validator("redis_url")
    @classmethod
    def _spoken_by_redis(cls, value: str) -> str:
        if not (value.startswith(("redis://", "rediss://", "unix://")) or is_sentinel(value)):
            raise ValueError(
                "not a URL that begins with redis://, rediss://, unix://, redis+sentinel:// or "
                "rediss+sentinel://"
            )
        return value

    @field_validator("redis_url", "celery_broker_url", "celery_result_backend")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        """Refuse here what a library would refuse later, quoting a part of the password."""
        if value is None:
            return None
        if value.startswith("sentinel://"):
            raise ValueError("write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB instead")
        if is_sentinel(value):
            parse_sentinel(value)
            return value
        try:
            several = [urlsplit(url) for url in value.split(";")]  # Celery takes several so
            _ = [url.port for url in several]
        except ValueError:
            raise ValueError(
                "not a URL that can be read; percent-encode special characters in the password"
            ) from None
        if len({url.scheme for url in several}) > 1:
            raise ValueError("several URLs, of which some are of another kind, or without TLS")
        return ";".join(map(verified, value.split(";")))

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        """Refuse numbers that are each right and together lose or repeat work."""
        ordered = [
            # a task is asked to end before it is killed
            ("task_soft_time_limit_s", "task_time_limit_s", True),
            # a lease that ends while its task may still send would send twice
            ("task_time_limit_s", "delivery_lease_s", False),
        ]
        if self.reports_low_water is not None:
            ordered.append(("reports_low_water", "reports_high_water", True))
        if self.broker_url.startswith("redis"):
            # Redis gives away what takes longer, at work or waiting for its countdown
            ordered.append(("task_time_limit_s", "visibility_timeout_s", True))
            ordered.append(("retry_max_s", "visibility_timeout_s", True))
        if self.unsubscribe_key is None and "{token}" in (self.list_unsubscribe_url or ""):
            names = environment_name("list_unsubscribe_url"), environment_name("unsubscribe_key")
            raise ValueError(f"{names[0]} holds {{token}}, so {names[1]} is needed to make one")
        for lower, higher, strictly in ordered:
            low, high = getattr(self, lower), getattr(self, higher)
            if low > high or (strictly and low == high):
                names = environment_name(lower), environment_name(higher)
                relation = "below" if strictly else "at most"
                raise ValueError(f"{names[0]} ({low}) must be {relation} {names[1]} ({high})")
        return self

    @property
    def low_water(self) -> int:
        """Waiting report tasks at which a listener that has stopped reads on."""
        return (
            self.reports_high_water // 4
            if self.reports_low_water is None
            else (self.reports_low_water)
        )

    @property
    def heartbeat_folder(self) -> Path:
        """Where heartbeat files are kept."""
        return self.heartbeats_dir or self.data_dir / "heartbeats"

    @property
    def broker_url(self) -> str:
        """Celery's broker."""
        return self.celery_broker_url or self.redis_url

    @property
    def result_backend(self) -> str:
        """Celery's result backend."""
        return self.celery_result_backend or self.redis_url

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'ledger.sqlite3'}"

    @property
    def artifact_store_url(self) -> str:
        """URL of the artifact store."""
        return self.artifacts_url or (self.data_dir.absolute() / "artifacts").as_uri()


def environment_name(field: str) -> str:
    """The variable that sets ``field``: its usual name where it has one, else the prefixed one."""
    alias = Settings.model_fields[field].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else PREFIX + field.upper()


def variables_of(field: str) -> tuple[str, ...]:
    """Every variable that sets ``field``."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (environment_name(field),)


def reads_a_file(field: str) -> bool:
    """Whether ``NAME_FILE`` counts too; OpenTelemetry's SDK reads its own variables itself."""
    return not environment_name(field).startswith("OTEL_")


def _file_variables() -> dict[str, tuple[str, ...]]:
    return {field: variables_of(field) for field in Settings.model_fields if reads_a_file(field)}


def origin_of(field: str, environment: Mapping[str, str]) -> str:
    """Where a setting's value comes from: a variable, a variable that names a file, or default."""
    given = given_by(variables_of(field), environment)
    return next(iter(given), "default")


def load_settings(**overrides: Any) -> Settings:
    """Read the environment once; ``overrides`` (by field name) win over it.

    Raises InvalidSettings that names each bad variable and never shows its value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(f"{_variable(item['loc'])}: {item['msg']}" for item in error.errors())
        raise InvalidSettings(f"settings: {problems}") from error


def _variable(location: tuple[int | str, ...]) -> str:
    """A bad value's place: the variable, and the item counted from 1 where it is a list."""
    if not location:
        return "together"
    first, *rest = (str(part) for part in location)
    name = environment_name(first) if first in Settings.model_fields else first
    return " item ".join([name, *(str(int(part) + 1) for part in rest if part.isdigit())])
