"""How each part of the service is: one question per part, none of which waits for another.

The processes are known by their heartbeats, on this machine by file and elsewhere
by what they noted in Redis; the rest is asked itself.  Every question has a
thread and a time of its own, so that a database that hangs hides neither Redis
nor the listener.
"""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy import make_url

from listener.asking import Question, wait_for
from schemas.errors import InvalidSettings, NotFound, StreamUnavailable
from schemas.health import PartHealth, State, worst
from schemas.settings import Settings
from store import figures, runs
from store.endpoints import disabled_endpoints
from store.heartbeats import PARTS, judge_heartbeats, read_heartbeats
from store.tries import count_closed
from tasks.app import QUEUES
from tasks.lag import read_lag
from tasks.newer import ASIDE
from tasks.presence import SILENT_S, SWEPT, Presence, Seen
from tasks.queues import queue_depth
from tasks.redis_server import open_client, told
from tasks.wiring import Wiring

DEPENDENCIES = ("redis", "broker", "ledger", "artifacts")
EVERYTHING = (*PARTS, *DEPENDENCIES, "channels")

NEEDS = {
    "listener": ("redis", "broker", "ledger"),
    "worker": ("broker", "ledger", "artifacts"),
    "beat": ("broker",),
}
"""What each process cannot work without."""

LOW_DISK_BYTES = 512 * 1024 * 1024
FULL_MEMORY = 0.9

Findings = Iterator[tuple[State, str, str]]
"""What is not as it should be: how bad, a sentence, what to do."""


class Examiner:
    """Asks parts how they are, each for at most ``health_timeout_s``.

    A question that hangs keeps its thread and is not asked again before it ends,
    however often the examiner looks.
    """

    def __init__(self, parts: Wiring) -> None:
        self._parts = parts
        self._hanging: dict[str, Question] = {}

    def look(self, names: Sequence[str]) -> list[PartHealth]:
        """How these parts are, in their order.  Blocks for the timeout at most."""
        timeout_s = self._parts.settings.health_timeout_s
        asked = [
            self._hanging.pop(name)
            if name in self._hanging
            else Question(name, partial(CHECKS[name], self._parts), DO[name])
            for name in names
        ]
        wait_for(asked, timeout_s)
        for question in asked:
            if question.is_alive():
                self._hanging[question.part] = question
        return [question.answer() for question in asked]


DO = {
    "listener": "see its log, and: scanherald health listener --live",
    "worker": "see its log, and: scanherald health worker --live",
    "beat": "see its log, and: scanherald health beat --live",
    "redis": "start the server, or see REDIS_URL; what is recorded is safe, and listeners wait",
    "broker": "start the broker, or see CELERY_BROKER_URL; the sweep publishes again",
    "ledger": "start the database, or see DATABASE_URL; entries wait in the stream",
    "artifacts": "see ARTIFACTS_URL, its credentials and its disk; reports are rendered again",
    "channels": "see the ledger, which knows of deliveries",
}


def check_process(parts: Wiring, part: str) -> PartHealth:
    """A listener, worker or beat: by file on this machine, elsewhere by its note in Redis."""
    beats = read_heartbeats(parts.settings.heartbeat_folder, part)
    found = judge_heartbeats(part, beats, parts.clock().timestamp())
    try:
        elsewhere = [
            seen
            for seen in _presence(parts.settings)
            if seen.part == part and seen.host != socket.gethostname()
        ]
    except StreamUnavailable:
        return found  # Redis's own line says so
    return _with_others(found, elsewhere, is_here=bool(beats))


def _with_others(here: PartHealth, elsewhere: list[Seen], *, is_here: bool) -> PartHealth:
    if not elsewhere:
        return here
    silent = [seen for seen in elsewhere if seen.ago_s > SILENT_S]
    alive = len(elsewhere) - len(silent)
    says = f"{alive} of {len(elsewhere)} on other machines are alive"
    do = here.do if is_here else ""
    if silent:
        last = max(silent, key=lambda seen: seen.ago_s)
        says += f"; {last.host} (process {last.pid}) was last seen {last.ago_s:.0f} s ago"
        do = do or f"look at it on {last.host}; one that was removed is forgotten in ten minutes"
    states = [here.state] if is_here else []
    states += [State.DOWN if seen in silent else State.HEALTHY for seen in elsewhere]
    state = worst(states)
    if state is State.DOWN and State.HEALTHY in states:
        state = State.DEGRADED
    return here._replace(state=state, says=f"{here.says}; {says}" if is_here else says, do=do)


def check_worker(parts: Wiring) -> PartHealth:
    """Workers, and whether the last sweep, which needs all parts together, ended in time."""
    found = check_process(parts, "worker")
    if found.state is State.DOWN:
        return found
    limit_s = 3 * parts.settings.sweep_interval_s + parts.settings.task_time_limit_s
    try:
        swept = [seen.ago_s for seen in _presence(parts.settings) if seen.part == SWEPT]
    except StreamUnavailable:
        return found
    if swept and min(swept) <= limit_s:
        return found._replace(says=f"{found.says}; the last sweep ended {min(swept):.0f} s ago")
    when = f"for {min(swept):.0f} s" if swept else "yet"
    return found._replace(
        state=State.DEGRADED,
        says=f"{found.says}; no sweep has ended {when}",
        do=found.do
        or "right after a start this is as it should be; else see whether beat runs and a worker "
        "serves the queue default",
    )


def check_redis(parts: Wiring) -> PartHealth:
    """The server of the stream: does it answer, does it keep what it has, who is behind."""
    settings = parts.settings
    with _server(settings) as client:
        persistence, memory = client.info("persistence"), client.info("memory")
    lags = read_lag(settings.redis_url, settings.streams, settings.consumer_group, parts.clock())
    unread = sum(lag.unread or 0 for lag in lags)
    pending = sum(lag.pending for lag in lags)
    oldest = max((lag.oldest_s for lag in lags if lag.oldest_s is not None), default=None)
    behind = f"{unread} entries unread, {pending} pending"
    if oldest is not None:
        behind += f", the oldest {oldest:.0f} s old"

    def findings() -> Findings:
        if oldest is not None and oldest > settings.health_lag_s:
            yield (
                State.DEGRADED,
                "the stream is not read in time",
                "see: scanherald health listener; more workers if they are behind",
            )
        yield from durability(persistence, memory)
        most = int(memory.get("maxmemory", 0))
        if most and int(memory.get("used_memory", 0)) > FULL_MEMORY * most:
            yield (
                State.DEGRADED,
                "memory is nearly full",
                "raise maxmemory, or lower SCANHERALD_STREAM_RETENTION_S",
            )

    return judged("redis", behind, findings())


def durability(persistence: Mapping[str, Any], memory: Mapping[str, Any]) -> Findings:
    """What a server's INFO says about whether it keeps what it is given."""
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield (
            State.DEGRADED,
            f"maxmemory-policy is {policy}: under pressure entries and tasks are dropped",
            "set maxmemory-policy noeviction",
        )
    if not int(persistence.get("aof_enabled", 0)):
        yield (
            State.DEGRADED,
            "the append-only file is off: a restart loses what was not recorded yet",
            "set appendonly yes; see docs/reliability.md for what each fsync policy costs",
        )
    if persistence.get("aof_last_write_status", "ok") != "ok":
        yield State.DEGRADED, "the server cannot write to its disk", "see its disk and log"


def check_broker(parts: Wiring) -> PartHealth:
    """Celery's broker: does it answer, and what waits in its queues."""
    depths = {name: queue_depth(name) for name in QUEUES}
    waiting = ", ".join(f"{count} in {name}" for name, count in depths.items())
    high = parts.settings.reports_high_water
    newer = queue_depth(ASIDE)

    def findings() -> Findings:
        for name in [name for name, depth in depths.items() if depth >= high]:
            yield (
                State.DEGRADED,
                f"{name} is full, and what feeds it waits",
                f"start more workers: scanherald worker --queue {name}",
            )
        if newer:
            yield (
                State.DEGRADED,
                f"{newer} messages of a newer release wait for a worker that knows them",
                "upgrade the workers that are left; see docs/upgrading.md",
            )

    return judged("broker", f"waiting: {waiting}", findings())


def check_ledger(parts: Wiring) -> PartHealth:
    """The database: its schema, and whether the work in it goes on."""
    settings = parts.settings
    file = sqlite_file(settings)
    current, head = _revisions(parts)
    if current != head:
        return PartHealth(
            "ledger",
            State.DEGRADED,
            f"its schema is {current}, this release's is {head}",
            "start a listener or worker of this release, which migrates; all parts at one release",
        )
    now = parts.clock()
    overdue_by = timedelta(seconds=2 * settings.sweep_interval_s + settings.starting_grace_s)
    with parts.ledger.read() as connection:
        oldest = runs.oldest_unsettled(connection)
        overdue = figures.overdue_deliveries(connection, now - overdue_by)
        dead = runs.count_dead_since(connection, now - timedelta(hours=1))
    age_s = None if oldest is None else (now - oldest).total_seconds()
    says = "no run is unfinished" if age_s is None else f"oldest unfinished run: {age_s:.0f} s"

    def findings() -> Findings:
        if age_s is not None and age_s > settings.run_deadline_s:
            yield (
                State.DEGRADED,
                f"that is more than the {settings.run_deadline_s:.0f} s of one attempt",
                "see: scanherald health worker; scanherald runs --state dispatched",
            )
        if overdue:
            yield (
                State.DEGRADED,
                f"{overdue} deliveries are overdue",
                "see: scanherald health beat; scanherald deliveries --state pending",
            )
        if dead:
            yield (
                State.DEGRADED,
                f"{dead} runs died in the last hour",
                "see: scanherald runs --state dead; after a fix: scanherald runs retry --dead",
            )
        if file is not None:
            yield from _disk(file.parent)

    return judged("ledger", says, findings())


def check_artifacts(parts: Wiring) -> PartHealth:
    """The store: a tiny object is put, read and deleted again."""
    key, probe = f"health/{uuid.uuid4()}", b"scanherald health\n"
    store = parts.artifacts
    if store.folder is not None and not store.folder.exists():
        return _check_parent(store.folder)
    store.put(key, probe)
    try:
        read = store.get(key)
    except NotFound:
        read = b""
    finally:
        store.delete(key)

    def findings() -> Findings:
        if read != probe:
            yield State.DOWN, "what was put is not what is read", "see who else writes there"
        if store.folder is not None:
            yield from _disk(store.folder)

    return judged("artifacts", "a probe was put, read and deleted", findings())


def check_channels(parts: Wiring) -> PartHealth:
    """The ways out: what is set up, and which addresses and destinations fail."""
    current, head = _revisions(parts)
    if current != head:
        return PartHealth(
            "channels",
            State.DEGRADED,
            f"not asked: the ledger's schema is {current}",
            DO["channels"],
        )
    now = parts.clock()
    with parts.ledger.read() as connection:
        told = figures.count_subscribers(connection)
        disabled = len(disabled_endpoints(connection))
        paused = figures.paused_destinations(connection, now)
        failed = figures.failed_since(connection, now - timedelta(hours=1))
        closed = count_closed(connection)
    mail = "on" if parts.settings.smtp_host else "off (no SCANHERALD_SMTP_HOST)"

    def findings() -> Findings:
        if failed:
            yield (
                State.DEGRADED,
                f"{failed} deliveries failed in the last hour",
                "see: scanherald deliveries --failed; after a fix: scanherald deliveries retry "
                "--failed",
            )
        if closed:
            yield (
                State.DEGRADED,
                f"{closed} deliveries wait for an encryption key that is not here",
                "see: scanherald config check; docs/keys.md",
            )
        if disabled:
            yield (
                State.DEGRADED,
                f"{disabled} addresses are disabled",
                "see: scanherald subscribers list; after a fix: scanherald deliveries enable",
            )
        if paused:
            yield (
                State.DEGRADED,
                f"{paused} destinations do not answer and are paused",
                "none if they come back: they are looked at again and again",
            )

    return judged("channels", f"{told} subscribers, e-mail {mail}", findings())


CHECKS: dict[str, Callable[[Wiring], PartHealth]] = {
    "listener": lambda parts: check_process(parts, "listener"),
    "worker": check_worker,
    "beat": lambda parts: check_process(parts, "beat"),
    "redis": check_redis,
    "broker": check_broker,
    "ledger": check_ledger,
    "artifacts": check_artifacts,
    "channels": check_channels,
}


def judged(part: str, says: str, findings: Findings) -> PartHealth:
    """A part as bad as the worst of what was found."""
    found = list(findings)
    return PartHealth(
        part,
        worst(state for state, _, _ in found),
        "; ".join([says, *(sentence for _, sentence, _ in found)]),
        "; ".join(do for _, _, do in found),
    )


def _disk(folder: Path) -> Findings:
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        yield (
            State.DEGRADED,
            f"only {free // 1024**2} MiB are free on the disk of {folder}",
            "make room: scanherald cannot record what it cannot write",
        )


def _revisions(parts: Wiring) -> tuple[str, str | None]:
    """The schema's revision and this release's.  Looking makes no ledger."""
    file = sqlite_file(parts.settings)
    if file is not None and not file.exists():
        raise InvalidSettings(f"there is no ledger yet: no file {file}")
    current, head = parts.ledger.revisions()
    if current is None:
        raise InvalidSettings("there is no ledger yet: the database is empty")
    return current, head


def _check_parent(folder: Path) -> PartHealth:
    """A folder that the first artifact makes: can it?"""
    there = next(path for path in folder.parents if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        says = f"the folder {folder} cannot be made in {there}"
        return PartHealth("artifacts", State.DOWN, says, DO["artifacts"])
    return judged("artifacts", f"the first one makes the folder {folder}", _disk(there))


def sqlite_file(settings: Settings) -> Path | None:
    """The file of a SQLite ledger; None for any other database."""
    if not settings.ledger_url.startswith("sqlite"):
        return None  # unread: what a library says of a wrong URL may quote its password
    return Path(str(make_url(settings.ledger_url).database))


def _presence(settings: Settings) -> list[Seen]:
    presence = Presence(settings)
    try:
        return presence.read()
    finally:
        presence.close()


@contextmanager
def _server(settings: Settings) -> Iterator[Any]:
    timeout_s = settings.health_timeout_s
    try:
        client = open_client(settings.redis_url, timeout_s=timeout_s, connect_s=timeout_s)
        try:
            yield client
        finally:
            client.close()
    except (RedisError, OSError) as error:
        raise StreamUnavailable(f"redis: {told(error)}") from error
