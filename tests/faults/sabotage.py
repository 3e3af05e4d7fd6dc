"""Workers that break inside Celery and kombu, where no crash point of ours can stand.

Each window breaks once per token that a test lays for it; then the worker is
sound.  The places are those of celery and kombu 5.7.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from typing import Any

from cli.supervisor import Part
from schemas.crash_points import crash_here, take_token


class Window(StrEnum):
    """What has happened inside Celery, and what has not."""

    COUNTING = "celery.counting"
    """A header task has ended; its chord has not counted it.  The process dies."""
    HOLDING_CLAIM = "celery.holding_claim"
    """The chord's dispatch is claimed; the body is not published.  The process dies."""
    POPPED_REPORT = "kombu.popped.reports"
    """A header's message is popped; it is not among the unacknowledged.  The process dies."""
    POPPED_NOTIFICATION = "kombu.popped.notifications"
    """The same with a body's or a delivery's message."""
    PART_RETURN = "celery.part_return"
    """Redis fails before a chord has counted a part; the process lives."""
    ANSWER_LOST = "celery.answer_lost"
    """Redis has counted a part; its answer is lost.  The process lives."""


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

    _before(
        transport.Transport,
        "_deliver",
        lambda _transport, _message, queue: crash_here(f"kombu.popped.{queue}"),
    )
    count = RedisBackend._chord_part_return_script.func

    def count_and_lose(self: Any) -> Callable[..., Any]:
        whole = count(self)

        def counted(*arguments: Any, **named: Any) -> Any:
            answer = whole(*arguments, **named)
            if take_token(Window.ANSWER_LOST):
                raise RedisConnectionError("sabotage: connection lost after a chord counted")
            return answer

        return counted

    lossy: Any = cached_property(count_and_lose)
    lossy.__set_name__(RedisBackend, "_chord_part_return_script")
    RedisBackend._chord_part_return_script = lossy


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
