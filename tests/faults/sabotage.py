"""Workers that break inside Celery and kombu, where no crash point of ours can stand.

Each window breaks once per token that a test lays for it; then the worker is
sound.  The places are those of celery and kombu 5.7.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from cli.supervisor import Part
from schemas.crash_points import crash_here, take_token


class Window(StrEnum):
    """What has happened inside Celery, and what has not."""

    COUNTING = "celery.counting"
    """A header task has ended; its chord has not counted it.  The process dies."""
    HOLDING_CLAIM = "celery.holding_claim"
    """The chord's dispatch is claimed; the body is not published.  The process dies."""
    POPPED = "kombu.popped"
    """A message is popped from its queue; it is not among the unacknowledged.  It dies."""
    PART_RETURN = "celery.part_return"
    """Redis fails while a chord counts a part; the process lives."""


LAUNCH = (
    "import sys; from tests.faults.sabotage import break_in; break_in(); "
    "sys.argv[0] = 'scanherald'; from cli.main import main; main()"
)


def sabotaged_worker(service: Any, concurrency: int = 2) -> Part:
    """A worker that meets the tokens of every window."""
    return Part(
        "worker",
        [sys.executable, "-c", LAUNCH, "worker", "--concurrency", str(concurrency)],
        {**os.environ, **service.environment},
        service.folder / "logs" / "worker.log",
    )


def break_in() -> None:
    """Put the windows into this process's Celery, before it starts."""
    from celery.backends.redis import RedisBackend
    from kombu.transport import redis as transport
    from redis.exceptions import ConnectionError as RedisConnectionError

    def fail_in_part_return(*_: Any, **__: Any) -> None:
        if take_token(Window.PART_RETURN):
            raise RedisConnectionError("sabotage: connection lost while a chord counts")

    _before(RedisBackend, "on_chord_part_return", lambda *_, **__: crash_here(Window.COUNTING))
    _before(
        RedisBackend, "get_key_for_group", fail_in_part_return, only_from="on_chord_part_return"
    )
    _before(
        RedisBackend,
        "_chord_publish_claim_expires",
        lambda *_, **__: crash_here(Window.HOLDING_CLAIM),
    )
    _before(transport.Transport, "_deliver", lambda *_, **__: crash_here(Window.POPPED))


def _before(
    owner: Any, name: str, first: Callable[..., None], *, only_from: str | None = None
) -> None:
    """Let ``first`` run before a method, if need be only when a given function calls it."""
    whole = getattr(owner, name)

    def both(*arguments: Any, **named: Any) -> Any:
        if only_from is None or sys._getframe(1).f_code.co_name == only_from:
            first(*arguments, **named)
        return whole(*arguments, **named)

    setattr(owner, name, both)
