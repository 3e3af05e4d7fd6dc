"""Which message goes first, on transports that count in opposite directions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.reports import Format
from schemas.runs import RunTicket
from schemas.settings import load_settings
from tasks import chords
from tasks.app import QUEUES, app, celery_settings
from tasks.priorities import priorities_of


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h/0", "sentinel://h:1;sentinel://h:2"])
def test_on_redis_the_lowest_goes_first_and_live_messages_stay_on_the_plain_lists(url: str) -> None:
    found = priorities_of(url)
    assert (found.live, found.replay) == (0, 9)
    assert found.transport_options == {"priority_steps": [0, 9]}
    assert found.max_priority is None


@pytest.mark.parametrize("url", ["amqp://h//", "amqps://h//", "pyamqp://h//"])
def test_on_rabbitmq_the_highest_goes_first_and_the_queues_say_how_high(url: str) -> None:
    found = priorities_of(url)
    assert found.live > found.replay
    assert found.max_priority == found.live


def test_a_transport_without_priorities_treats_all_alike() -> None:
    found = priorities_of("memory://")
    assert found.of(is_replay=True) == found.of(is_replay=False) == 0


def test_the_settings_of_celery_follow_the_broker(clean_environment: None) -> None:
    redis = celery_settings(load_settings())
    assert redis["task_default_priority"] == 0
    assert redis["broker_transport_options"]["priority_steps"] == [0, 9]
    assert [queue.max_priority for queue in redis["task_queues"]] == [None] * len(QUEUES)
    rabbit = celery_settings(load_settings(CELERY_BROKER_URL="amqp://h//"))
    assert rabbit["task_default_priority"] == 1
    assert [queue.max_priority for queue in rabbit["task_queues"]] == [1] * len(QUEUES)


@pytest.mark.parametrize(("is_replay", "expected"), [(False, 0), (True, 9)])
@pytest.mark.parametrize(
    "ticket",
    [
        RunTicket("r", 1, (Format.PDF, Format.CSV), needs_data=False),
        RunTicket("r", 1, (Format.PDF, Format.CSV), needs_data=False, data_bytes=1000),
        RunTicket("r", 1, (), needs_data=False),
        RunTicket("r", 1, (), needs_data=True),
    ],
    ids=["chord", "together", "short", "fetch"],
)
def test_every_message_of_a_run_says_how_urgent_it_is(
    monkeypatch: pytest.MonkeyPatch,
    broker: Any,
    ticket: RunTicket,
    is_replay: bool,
    expected: int,
) -> None:
    seen: list[int] = []

    def keep(self: Any, *arguments: Any, **options: Any) -> None:
        tasks = getattr(self, "tasks", None) or [self]
        seen.extend(task.options["priority"] for task in tasks)
        body = (arguments[1] if len(arguments) > 1 else {}).get("body")
        if body is not None:
            seen.append(body.options["priority"])
        for signature in (body, *tasks):
            seen.extend(_links(signature))

    def _links(signature: Any) -> list[int]:
        options = {} if signature is None else signature.options
        linked = [*options.get("link", ()), *options.get("link_error", ())]
        return [link["options"]["priority"] for link in linked]

    monkeypatch.setattr(chords.Signature, "apply_async", keep)
    monkeypatch.setattr(chords.chord, "apply_async", keep)
    monkeypatch.setattr(app.conf, "broker_url", "redis://h/0", raising=False)
    chords.dispatch([replace(ticket, is_replay=is_replay)])
    assert seen
    assert set(seen) == {expected}
