"""One process's parts on a folder of the test: real ledger and artifacts, scripted channels."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from kombu.transport import memory
from kombu.transport.virtual import BrokerState
from sqlalchemy import select

from listener.decode import decode_batch
from listener.stream import EventStreams
from schemas.notifications import ChannelAddress, ChannelKind, Message, Receipt, Subscriber
from schemas.runs import Entry, RunTicket
from schemas.settings import Settings, load_settings
from store import tables
from store.artifacts import ArtifactStore
from store.events import record_batch
from store.ledger import Ledger
from store.subscribers import save_subscriber
from tasks import redis_server, reports, sweep, wiring
from tasks.app import app
from tasks.wiring import Wiring

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.now += timedelta(seconds=seconds)


class ScriptedChannel:
    """Answers with what its script says, first line first; then accepts everything."""

    def __init__(self) -> None:
        self.script: list[Receipt | BaseException | Callable[[], Any]] = []
        self.sent: list[Message] = []

    def send(self, message: Message) -> Receipt:
        """Keep the message and answer."""
        self.sent.append(message)
        answer = self.script.pop(0) if self.script else Receipt(status_code=200, text="thanks")
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    names = ("REDIS_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "DATABASE_URL")
    for name in (*names, "ARTIFACTS_URL", *os.environ):
        if name in names or name.startswith("SCANHERALD_") or name == "ARTIFACTS_URL":
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated ledger to copy: migrating costs more than most tests."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.migrate()
    ledger.close()
    return path


@pytest.fixture
def make_parts(
    tmp_path: Path,
    clock: Clock,
    empty_ledger: Path,
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Wiring]]:
    """Parts with these settings; tasks of this process find them too."""
    made: list[Wiring] = []
    numbers = itertools.count(1)
    monkeypatch.setattr(reports, "_assessed", OrderedDict())
    monkeypatch.setattr(sweep, "queue_depth", lambda _: 0)

    def make(**overrides: Any) -> Wiring:
        settings: Settings = load_settings(**{"data_dir": tmp_path / "data", **overrides})
        settings.data_dir.mkdir(exist_ok=True)
        if not (settings.data_dir / "ledger.sqlite3").exists():
            shutil.copy(empty_ledger, settings.data_dir / "ledger.sqlite3")
        parts = Wiring(
            settings,
            Ledger(settings.ledger_url),
            ArtifactStore(settings.artifact_store_url),
            clock=clock,
            monotonic=lambda: clock.now.timestamp(),
            sleep=clock.forward,
            new_id=lambda: str(uuid.UUID(int=next(numbers))),
            jitter=lambda: 0.5,
        )
        parts._channels = {kind: ScriptedChannel() for kind in ChannelKind}
        made.append(parts)
        monkeypatch.setattr(wiring, "_settings", settings)
        monkeypatch.setattr(wiring, "_current", (os.getpid(), parts))
        return parts

    yield make
    for parts in made:
        parts.close()


@pytest.fixture
def parts(make_parts: Callable[..., Wiring]) -> Wiring:
    return make_parts()


@pytest.fixture
def make_scan() -> Callable[..., bytes]:
    """A scan result; ``cookies`` and any other field can be given."""

    def make(number: int = 1, **fields: Any) -> bytes:
        scan = {
            "scan_id": str(uuid.UUID(int=0xA0000 + number)),
            "domain": "shop.example",
            "timestamp_utc": (NOON + timedelta(hours=number - 10)).isoformat(),
            "status": "success",
            "page_count": 2,
            "cookies": [
                {
                    "name": "_ads",
                    "domain": ".ads.example",
                    "path": "/",
                    "category": "advertising",
                    "cookie_type": "Third Party",
                    "cookie_duration": "30 days",
                    "secure": True,
                    "http_only": False,
                    "set_after_accept": False,
                },
                {
                    "name": "sid",
                    "domain": "shop.example",
                    "path": "/",
                    "category": "necessary",
                    "cookie_type": "First Party",
                    "cookie_duration": "Session",
                    "secure": True,
                    "http_only": True,
                    "set_after_accept": False,
                },
            ],
        }
        return json.dumps({**scan, **fields}).encode()

    return make


@pytest.fixture
def record() -> Callable[..., RunTicket]:
    """RECORD one event as the listener does; returns the ticket of its run."""
    numbers = itertools.count(1)

    def record(parts: Wiring, data: bytes = b"", **attributes: str) -> RunTicket:
        fields = {name.encode(): value.encode() for name, value in attributes.items()}
        if data:
            fields[b"data"] = data
        entry = Entry("scans:events", f"{next(numbers)}-0", fields)
        decoded, dead = decode_batch([entry], max_bytes=parts.settings.max_entry_bytes)
        assert not dead, dead[0].reason
        now = parts.clock()
        with parts.ledger.write() as connection:
            recorded = record_batch(
                connection,
                decoded,
                [],
                defaults=parts.run_defaults,
                now=now,
                dispatch_by=now + timedelta(seconds=60),
                new_id=parts.new_id,
            )
        return recorded.tickets[0]

    return record


@pytest.fixture
def subscribe() -> Callable[..., None]:
    """Add a subscriber on these channels, by default a webhook alone."""

    def subscribe(
        parts: Wiring,
        name: str = "anna",
        kinds: tuple[ChannelKind, ...] = (ChannelKind.WEBHOOK,),
        **fields: Any,
    ) -> None:
        channels = tuple(
            ChannelAddress(kind=kind, target=f"https://{name}.example/{kind.value}")
            for kind in kinds
        )
        subscriber = Subscriber(subscriber_id=name, channels=channels, **fields)
        with parts.ledger.write() as connection:
            save_subscriber(connection, subscriber, parts.box, parts.clock())

    return subscribe


@pytest.fixture
def rows() -> Callable[..., list[Any]]:
    """All rows of a table, oldest first."""

    def rows(parts: Wiring, name: str) -> list[Any]:
        table = getattr(tables, name)
        with parts.ledger.read() as connection:
            query = select(table).order_by(*table.primary_key.columns)
            return list(connection.execute(query).mappings())

    return rows


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer(version=(7,))


@pytest.fixture
def client(server: fakeredis.FakeServer) -> Iterator[Any]:
    """A client of the in-process server, as a scanner or an operator has one."""
    with fakeredis.FakeRedis(server=server) as client:
        yield client


@pytest.fixture
def join(
    server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., EventStreams]]:
    """Consumers on the in-process server; everything of ours that opens a client gets it."""
    made: list[EventStreams] = []
    fake = SimpleNamespace(
        Redis=SimpleNamespace(from_url=lambda url, **_: fakeredis.FakeRedis(server=server))
    )
    monkeypatch.setattr(redis_server, "redis", fake)

    def join(
        consumer: str = "one", streams: tuple[str, ...] = ("scans:events",), *, now: bool = True
    ) -> EventStreams:
        joined = EventStreams("redis://none", streams, "scanherald", consumer, block_ms=10)
        if now:
            joined.ensure_groups()
        made.append(joined)
        return joined

    yield join
    server.connected = True
    for joined in made:
        joined.close()


BROKER_URLS = ("broker_url", "broker_read_url", "broker_write_url")


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, make_parts: Callable[..., Wiring]) -> Iterator[Any]:
    """The app on a broker and a result store in this process's memory."""
    before = {name: app.conf[name] for name in (*BROKER_URLS, "result_backend")}
    monkeypatch.setattr(memory.Transport, "global_state", BrokerState())
    monkeypatch.setattr(memory.Channel, "queues", {})
    _renew(**dict.fromkeys(BROKER_URLS, "memory://"), result_backend="cache+memory://")
    yield app
    _renew(**before)


def _renew(**conf: Any) -> None:
    """Give the app another configuration, and let go of what it made under the last one."""
    app.conf.update(conf)
    app._pool = None
    app._backend_cache = None
    app._local.__dict__.pop("backend", None)
    app.__dict__.pop("amqp", None)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float]]:
    """Tries of deliveries that were published: (delivery id, number, delay)."""
    from tasks.notifications import deliver

    seen: list[tuple[str, int, float]] = []

    def keep(arguments: tuple[str, int], *, task_id: str, countdown: float, **_: Any) -> None:
        assert task_id == f"{arguments[0]}:a{arguments[1]}"
        seen.append((*arguments, countdown))

    monkeypatch.setattr(deliver, "apply_async", keep)
    return seen


@pytest.fixture
def dispatched(monkeypatch: pytest.MonkeyPatch) -> list[RunTicket]:
    """Attempts of runs that the sweep and the fetch dispatched."""
    from tasks import fetch, sweep

    seen: list[RunTicket] = []
    for module in (fetch, sweep):
        monkeypatch.setattr(module, "dispatch", seen.extend)
    return seen
