"""``scanherald config check``: tries every setting that points somewhere, and explains.

It asks before anything is started, so it makes nothing: no ledger, no folder, no
key, no group.  Only the artifact store's probe is written, and deleted again.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from amqp.exceptions import AMQPError
from kombu import Connection as Broker
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy import func, select

from channels.operator_templates import check_templates
from listener.asking import Question, wait_for
from listener.health import Findings, check_artifacts, durability, judged, sqlite_file
from listener.unreachable import reason_of
from schemas.errors import (
    ChannelUnavailable,
    InvalidSettings,
    LedgerUnavailable,
    PermanentError,
    ScanheraldError,
)
from schemas.health import PartHealth, State
from schemas.setting_files import SUFFIX
from schemas.settings import PREFIX, Settings, environment_name, origin_of, variables_of
from store import tables
from store.key_files import read_key_file
from store.resealing import count_sealed
from store.secrets import KEY_FILE as ENCRYPTION_KEY
from store.secrets import SecretBox, known_keys
from store.signing_keys import KEY_FILE as SIGNING_KEY
from store.signing_keys import check_signing_key
from tasks.engines import engine_settings
from tasks.redis_server import open_client
from tasks.wiring import Wiring

CLOCK_TOLERANCE_S = 5.0

REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")

LOCAL = ("localhost", "127.0.0.1", "::1")

PATIENCE = 0.8
"""Of a check's time: what its library may wait, so that it can still say for what it waited."""

Check = Callable[[], PartHealth]


def check_all(parts: Wiring, environment: Mapping[str, str]) -> list[PartHealth]:
    """Every check, all at once, each for at most ``health_timeout_s``; in a fixed order."""
    settings = parts.settings
    asked = [
        Question(name, _spoken(name, check), _see(name))
        for name, check in _checks(parts, environment)
    ]
    wait_for(asked, settings.health_timeout_s)
    return [question.answer() for question in asked]


def _checks(parts: Wiring, environment: Mapping[str, str]) -> Iterator[tuple[str, Check]]:
    settings = parts.settings
    yield "settings", partial(check_settings, settings, environment)
    yield "REDIS_URL", partial(check_redis_url, settings, "redis_url", settings.redis_url)
    for field in ("celery_broker_url", "celery_result_backend"):
        url = getattr(settings, field)
        if url:
            yield environment_name(field), partial(check_celery_url, settings, field, url)
    yield "DATABASE_URL", partial(check_database, parts)
    yield "ARTIFACTS_URL", partial(check_artifact_store, parts)
    yield "encryption keys", partial(check_encryption_keys, parts)
    yield "signing key", partial(check_signing, settings)
    yield "folders", partial(check_folders, settings)
    yield "reports", partial(check_reports, parts)
    yield "e-mail", partial(check_mail, parts)
    yield "other channels", check_other_channels
    yield "time zones", check_time_zones
    if settings.otel_exporter_otlp_endpoint and not settings.otel_sdk_disabled:
        yield "OTEL_EXPORTER_OTLP_ENDPOINT", partial(check_traces, settings)


def _see(name: str) -> str:
    return f"see {name}, and whether its server runs" if name.isupper() else "see its settings"


def _spoken(name: str, check: Check) -> Check:
    """A check whose failures are told by their reason, where it is known."""

    def ask() -> PartHealth:
        try:
            return check()._replace(part=name)
        except (ScanheraldError, RedisError, KombuError, AMQPError, OSError) as error:
            reason = None if isinstance(error, PermanentError) else reason_of(error)
            if reason is None:
                said = " ".join(str(error).split())[:400] or type(error).__name__
                return PartHealth(name, State.DOWN, said, _see(name))
            return PartHealth(name, State.DOWN, reason.says, reason.do.format(name=name))

    return ask


# The settings themselves


def check_settings(settings: Settings, environment: Mapping[str, str]) -> PartHealth:
    """Combinations that start and do not do what was meant; what is refused never comes here."""
    given = sum(origin_of(field, environment) != "default" for field in Settings.model_fields)

    def findings() -> Findings:
        for name, meant in unknown_variables(environment):
            what = f"; {meant} is meant?" if meant else ""
            yield State.DEGRADED, f"{name} is no setting{what}", f"rename or remove {name}"
        if settings.crash_dir is not None:
            yield (
                State.DEGRADED,
                "SCANHERALD_CRASH_DIR is set: processes kill themselves for tests",
                "remove SCANHERALD_CRASH_DIR",
            )
        if settings.public_url is None and settings.artifact_store_url.startswith("file:"):
            yield (
                State.DEGRADED,
                "messages link to files of this machine",
                "set SCANHERALD_PUBLIC_URL if readers are elsewhere",
            )
        url = settings.list_unsubscribe_url
        if url is not None and not url.startswith("https://"):
            yield (
                State.DEGRADED,
                "SCANHERALD_LIST_UNSUBSCRIBE_URL is not https: mail clients ignore it",
                "give an https address",
            )

    return judged("settings", f"{given} are given, the others have their defaults", findings())


def unknown_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Variables under our prefix that set nothing, each with the one that may be meant."""
    known = {name for field in Settings.model_fields for name in variables_of(field)}
    known |= {name + SUFFIX for name in known}
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            meant = difflib.get_close_matches(name.upper(), known, 1, 0.8)
            yield name, meant[0] if meant else None


# Redis, broker, result backend


def check_redis_url(settings: Settings, field: str, url: str) -> PartHealth:
    """A Redis or Valkey: its answer, its clock beside ours, and whether it keeps what it has."""
    timeout_s = PATIENCE * settings.health_timeout_s
    client = open_client(url, timeout_s=timeout_s, connect_s=timeout_s)
    before = time.time()
    try:
        seconds, micros = client.time()
        server, persistence, memory = (
            client.info(section) for section in ("server", "persistence", "memory")
        )
    finally:
        client.close()
    apart_s = abs(seconds + micros / 1e6 - before)
    kind = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version") or server.get("redis_version")

    def findings() -> Findings:
        if field != "celery_result_backend":  # a lost result costs an attempt, which is repeated
            yield from durability(persistence, memory)
        if apart_s > CLOCK_TOLERANCE_S:
            yield (
                State.DEGRADED,
                f"its clock and this machine's are {apart_s:.0f} s apart",
                "let both follow a time server: leases and due times are compared",
            )

    return judged(field, f"{kind} {version} answers", findings())


def check_celery_url(settings: Settings, field: str, url: str) -> PartHealth:
    """A broker or a result backend of its own."""
    if url.startswith(REDIS_SCHEMES):
        return check_redis_url(settings, field, url)
    if field == "celery_result_backend":
        return PartHealth(
            field,
            State.DEGRADED,
            f"{url.split(':', 1)[0]}: is not tried, and chords are tested with Redis alone",
            "use a redis:// result backend",
        )
    engine = engine_settings(settings)
    with Broker(
        engine["broker_url"],
        ssl=engine.get("broker_use_ssl") or False,
        connect_timeout=PATIENCE * settings.health_timeout_s,
    ) as broker:
        broker.connect()
        return PartHealth(field, State.HEALTHY, f"{broker.transport.driver_type} broker answers")


# What lasts


def check_database(parts: Wiring) -> PartHealth:
    """The ledger: is it there, at which schema, and may this process write to it."""
    file = sqlite_file(parts.settings)
    if file is not None and not file.exists():
        return _made_at_start("DATABASE_URL", f"there is no ledger yet: no file {file}", file)
    if file is not None and not os.access(file, os.R_OK | os.W_OK):
        raise InvalidSettings(f"{file} may not be read and written by this user")
    current, head = parts.ledger.revisions()

    def findings() -> Findings:
        if current is None:
            yield (
                State.DEGRADED,
                "there is no ledger in the database yet",
                "none: the first listener or worker makes it",
            )
        elif current not in parts.ledger.known_revisions():
            yield (
                State.DOWN,
                f"its schema {current} is newer than this release, which ends at {head}",
                "run the release that made it, or restore a backup; see docs/upgrading.md",
            )
        elif current != head:
            yield (
                State.DEGRADED,
                f"its schema is {current}, this release's is {head}",
                "back it up; the first listener or worker of this release migrates it",
            )

    kind = "PostgreSQL" if file is None else f"SQLite, {file}"
    return judged("DATABASE_URL", f"{kind}, schema {current or 'none'}", findings())


def check_artifact_store(parts: Wiring) -> PartHealth:
    """A probe is put, read and deleted; a folder that is not there yet is left so."""
    url = urlsplit(parts.settings.artifact_store_url)
    if url.scheme != "file":
        return check_artifacts(parts)
    folder = Path(unquote(url.path))
    if not folder.exists():
        return _made_at_start("ARTIFACTS_URL", f"there is no folder {folder} yet", folder)
    probes = folder / "health"
    were_there = probes.exists()
    try:
        return check_artifacts(parts)
    finally:
        if not were_there and probes.is_dir():
            probes.rmdir()


def _made_at_start(name: str, says: str, path: Path) -> PartHealth:
    """What the first start makes, if it may."""
    parent = next(place for place in path.absolute().parents if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InvalidSettings(f"{says}, and this user may not make it in {parent}")
    return PartHealth(name, State.DEGRADED, says, "none: the first start makes it")


# Keys


def check_encryption_keys(parts: Wiring) -> PartHealth:
    """Do the keys open what subscribers entrusted to us."""
    settings = parts.settings
    path = settings.data_dir / ENCRYPTION_KEY
    keys, origin = known_keys(settings.encryption_keys, settings.data_dir)
    box = SecretBox(keys, origin) if keys else None
    sealed, closed = _sealed(parts, box)
    if box is None and not sealed:
        return _made_at_start("encryption keys", f"there is no key file {path} yet", path)

    def findings() -> Findings:
        if not settings.encryption_keys and path.exists():
            yield from _mode(path)
        if closed:
            yield (
                State.DOWN,
                f"{closed} of {sealed} sealed addresses fit none of the keys",
                "put the key they were sealed with after the present one in "
                "SCANHERALD_ENCRYPTION_KEYS; if it is lost, see docs/keys.md",
            )

    return judged("encryption keys", f"from {origin}; {sealed} sealed addresses", findings())


def _sealed(parts: Wiring, box: SecretBox | None) -> tuple[int, int]:
    """Sealed addresses, and those that no key opens; none where there is no ledger to ask."""
    file = sqlite_file(parts.settings)
    if file is not None and not file.exists():
        return 0, 0
    try:
        if None in (revisions := parts.ledger.revisions()) or revisions[0] != revisions[1]:
            return 0, 0
        if box is not None:
            return count_sealed(parts.ledger, box)
        with parts.ledger.read() as connection:
            count = connection.execute(
                select(func.count()).select_from(tables.subscribers)
            ).scalar_one()
            return count, count
    except LedgerUnavailable:
        return 0, 0  # DATABASE_URL's own line says so


def check_signing(settings: Settings) -> PartHealth:
    """The key of evidence bundles."""
    if settings.signing_key is not None:
        check_signing_key(settings.signing_key.get_secret_value(), "SCANHERALD_SIGNING_KEY")
        return PartHealth("signing key", State.HEALTHY, "from SCANHERALD_SIGNING_KEY")
    path = settings.data_dir / SIGNING_KEY
    text = read_key_file(path)
    if text is None:
        return _made_at_start("signing key", f"there is no key file {path} yet", path)
    check_signing_key(text, f"the key file {path}")
    return judged("signing key", f"from the key file {path}", _mode(path))


def _mode(path: Path) -> Findings:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield (
            State.DEGRADED,
            f"others may read {path} (mode {mode:04o})",
            f"chmod 600 {path}",
        )


# Folders, reports, channels


def check_folders(settings: Settings) -> PartHealth:
    """Folders that must be there, and the data folder, which the first start makes."""

    def findings() -> Findings:
        for field in ("rule_packs_dir", "templates_dir"):
            yield from _readable(field, [getattr(settings, field)])
        yield from _readable("dataref_file_roots", settings.dataref_file_roots)
        for field, folder in (
            ("data_dir", settings.data_dir),
            ("heartbeats_dir", settings.heartbeat_folder),
        ):
            if not folder.exists():
                made = _made_at_start(field, f"there is no folder {folder.absolute()} yet", folder)
                if field == "data_dir":
                    yield made.state, made.says, made.do
            elif not os.access(folder, os.W_OK | os.X_OK):
                name = environment_name(field)
                yield State.DOWN, f"this user may not write to {folder}", f"chown it, or see {name}"

    return judged("folders", f"data in {settings.data_dir.absolute()}", findings())


def _readable(field: str, folders: Iterable[Path | None]) -> Findings:
    for folder in folders:
        if folder is not None and not os.access(folder, os.R_OK | os.X_OK):
            what = "may not be read" if folder.exists() else "is not there"
            yield State.DOWN, f"the folder {folder} {what}", f"see {environment_name(field)}"


def check_reports(parts: Wiring) -> PartHealth:
    """Rule pack, languages, brand and templates: what a process refuses at its start."""
    defaults = parts.run_defaults
    check_templates(parts.settings.templates_dir)
    formats = ", ".join(defaults.formats)
    return PartHealth("reports", State.HEALTHY, f"{defaults.rule_pack}; {formats}")


def check_mail(parts: Wiring) -> PartHealth:
    """The mail server as for a message: connect, secure, log in; and hang up."""
    from channels.smtp import SmtpChannel

    settings = parts.settings
    if not settings.smtp_host:
        return PartHealth("e-mail", State.HEALTHY, "off: SCANHERALD_SMTP_HOST is empty")
    timeout_s = min(settings.smtp_timeout_s, PATIENCE * settings.health_timeout_s)
    channel = SmtpChannel(settings.model_copy(update={"smtp_timeout_s": timeout_s}), parts.clock)
    try:
        channel.greet()
    except ChannelUnavailable as error:
        reason = reason_of(error)
        do = "see SCANHERALD_SMTP_HOST, _PORT, _SECURITY, _USERNAME and _PASSWORD"
        says = f"{reason.says}: {error}" if reason else str(error)
        return PartHealth("e-mail", State.DOWN, says, do)
    finally:
        channel.close()

    def findings() -> Findings:
        if settings.smtp_security == "none" and settings.smtp_host not in LOCAL:
            yield (
                State.DEGRADED,
                "messages and the password travel without TLS",
                "set SCANHERALD_SMTP_SECURITY to starttls or tls",
            )
        if settings.mail_from.endswith("@localhost"):
            yield (
                State.DEGRADED,
                f"the sender is {settings.mail_from}: other servers refuse it",
                "set SCANHERALD_MAIL_FROM",
            )

    logged_in = "logged in" if settings.smtp_username else "no login"
    says = f"{settings.smtp_host}:{settings.smtp_port} answers, {logged_in}; nothing was sent"
    return judged("e-mail", says, findings())


def check_other_channels() -> PartHealth:
    """Their addresses are the subscribers': nothing is sent."""
    return PartHealth(
        "other channels",
        State.HEALTHY,
        "webhook, Slack and Apprise are each subscriber's own and were not tried: "
        "scanherald subscribers test NAME",
    )


def check_time_zones() -> PartHealth:
    """Quiet hours and digests need the names of time zones."""
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return PartHealth(
            "time zones",
            State.DOWN,
            "this machine does not know them: quiet hours and digests would fail",
            "install the system's tzdata, or: pip install tzdata",
        )
    return PartHealth("time zones", State.HEALTHY, "known; logs, beat and the ledger keep UTC")


def check_traces(settings: Settings) -> PartHealth:
    """Whether something listens where traces are sent; no trace is."""
    url = urlsplit(settings.otel_exporter_otlp_endpoint or "")
    if importlib.util.find_spec("opentelemetry") is None:
        return PartHealth(
            "traces",
            State.DEGRADED,
            "tracing is asked for and not installed",
            "pip install 'scanherald[otel]'",
        )
    try:
        port = url.port or {"https": 443}.get(url.scheme, 80)
    except ValueError:  # it would quote what may be the end of a password
        raise InvalidSettings(
            "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL that can be read; percent-encode special "
            "characters in the password"
        ) from None
    with socket.create_connection((url.hostname or "", port), PATIENCE * settings.health_timeout_s):
        return PartHealth("traces", State.HEALTHY, f"{url.hostname}:{port} takes connections")
