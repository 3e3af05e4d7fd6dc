"""What a task works with, made once per process at its first task.

A worker forks; nothing here is made before the fork, because neither database
connections nor the artifact store's threads survive one.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from compliance.rules import RulePack, load_frozen_pack, load_pack, pack_digest
from languages.language import load_language
from schemas.errors import InvalidSettings
from schemas.notifications import ChannelKind
from schemas.runs import FrozenInputs
from schemas.settings import Settings, environment_name, load_settings
from store.artifacts import ArtifactStore
from store.events import RunDefaults
from store.ledger import Ledger
from store.secrets import SecretBox, open_secret_box
from tasks.branding import read_presentation
from tasks.tracing import Tracer
from tasks.tracing_setup import open_tracer

if TYPE_CHECKING:
    from channels.registry import Channel


def utc_now() -> datetime:
    """The clock that is passed in everywhere."""
    return datetime.now(UTC)


def random_id() -> str:
    """A new random identity."""
    return str(uuid.uuid4())


@dataclass
class Wiring:
    """The parts of one process.

    ``monotonic`` gives seconds that no correction of the clock moves: for
    waiting.  ``jitter`` gives numbers in [0, 1).
    """

    settings: Settings
    ledger: Ledger
    artifacts: ArtifactStore
    clock: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    new_id: Callable[[], str] = random_id
    jitter: Callable[[], float] = random.random
    _box: SecretBox | None = None
    _channels: dict[ChannelKind, Channel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def box(self) -> SecretBox:
        """What opens subscribers' addresses."""
        if self._box is None:
            keys = [key.get_secret_value() for key in self.settings.encryption_keys]
            self._box = open_secret_box(keys, self.settings.data_dir)
        return self._box

    @cached_property
    def run_defaults(self) -> RunDefaults:
        """What a new run is given; the rule pack by its exact version, so that it stays judged so.

        Read once: a changed brand file counts from the next start of the process.
        Raises InvalidSettings for an unknown pack or language, or a bad brand file.
        """
        settings = self.settings
        pack = load_pack(settings.rule_pack, settings.rule_packs_dir)
        _check_language("language", settings.language)
        for _, code in settings.domain_languages:
            _check_language("domain_languages", code)
        return RunDefaults(
            formats=settings.formats,
            language=settings.language,
            rule_pack=pack.name,
            rule_pack_sha256=pack_digest(pack.name, settings.rule_packs_dir),
            domain_languages=settings.domain_languages,
            presentation=read_presentation(settings.branding, csv_bom=settings.csv_bom),
        )

    def channel(self, kind: ChannelKind) -> Channel:
        """The channel of this process; its connections are reused."""
        from channels.registry import CHANNELS  # heavy, and only senders need it

        with self._lock:
            if kind not in self._channels:
                self._channels[kind] = CHANNELS[kind](self.settings, self.clock)
            return self._channels[kind]

    @cached_property
    def tracer(self) -> Tracer:
        """What follows events through this process."""
        return open_tracer(self.settings)

    def close(self) -> None:
        """Close connections, and hand over what was traced."""
        if "tracer" in self.__dict__:
            self.tracer.close()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self.ledger.close()


def _check_language(setting: str, code: str) -> None:
    try:
        load_language(code)
    except InvalidSettings as error:
        raise InvalidSettings(f"{environment_name(setting)}: {error}") from error


def frozen_pack(parts: Wiring, inputs: FrozenInputs) -> RulePack:
    """The pack that a run's inputs name.  Raises InvalidSettings if it is gone or was edited."""
    folder = parts.settings.rule_packs_dir
    return load_frozen_pack(inputs.rule_pack, inputs.rule_pack_sha256, folder)


def wire(settings: Settings) -> Wiring:
    """The parts for these settings; nothing is opened yet."""
    ledger = Ledger(settings.ledger_url, settings.ledger_connections)
    return Wiring(settings, ledger, ArtifactStore(settings.artifact_store_url))


_settings: Settings | None = None
_current: tuple[int, Wiring] | None = None
_guard = threading.Lock()


def use(settings: Settings) -> None:
    """Give this process its settings, before its first task."""
    global _settings, _current
    _settings = settings
    _current = None


def settings() -> Settings:
    """The settings given by ``use``, else the environment, read once."""
    global _settings
    if _settings is None:
        _settings = load_settings()
    return _settings


def leave() -> None:
    """Close this process's parts, if it has made any, because it ends."""
    if _current is not None and _current[0] == os.getpid():
        _current[1].close()


def current() -> Wiring:
    """This process's parts, made at the first call and again after a fork."""
    global _current
    with _guard:
        if _current is None or _current[0] != os.getpid():
            _current = (os.getpid(), wire(settings()))
        return _current[1]
