"""Messages of a newer release, met by a worker of this one: set aside, never dropped.

Each message says for which version of the tasks' arguments it was written.  A
worker that is older leaves it in a queue of its own, from where the sweep of a
worker that understands it brings it back.  Celery would refuse an unknown task
and fail on an unknown argument, and either message would be gone: a run's and a
delivery's would come again by the ledger, the platform's would not.

A name that is unknown in a message of our own version, or of none, is a mistake:
Celery answers it as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from celery.signals import before_task_publish
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from kombu import Producer, Queue

from schemas.errors import BrokerUnavailable
from tasks.app import app
from tasks.publishing import broker_faults
from tasks.queues import queue_depth

log = structlog.get_logger("tasks.newer")

ARGUMENTS_VERSION = 3
"""Raised whenever a task is added or its arguments change; tests/data/task-arguments.json says
with what.  A task that is taken away stays registered for one release, for what is still queued.
1 is release 0.1, whose messages say nothing."""

HEADER, ORIGIN = "arguments_version", "set_aside_from"

ASIDE = "newer"
"""The queue of what waits for a newer worker."""

AT_ONCE = 2_000
"""Messages that one look may move: those that still wait go round at the end of the queue."""


@before_task_publish.connect
def _say_version(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is not None:
        headers.setdefault(HEADER, ARGUMENTS_VERSION)  # a retry has the arguments of its first try


def is_newer(headers: Mapping[str, Any] | None) -> bool:
    """Whether a message was written for arguments that this release does not know."""
    version = (headers or {}).get(HEADER)
    return isinstance(version, int) and version > ARGUMENTS_VERSION


class PatientConsumer(Consumer):
    """Celery's consumer, which leaves alone what it cannot understand yet."""

    connection_errors: Any

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """As Celery's, after a look at the message's version."""
        understand = super().create_task_handler(*arguments, **options)

        def look(message: Any) -> Any:
            return self._set_aside(message) if is_newer(message.headers) else understand(message)

        return look

    def _set_aside(self, message: Any) -> None:
        """Publish first, acknowledge then: killed between the two, the message is there twice.

        A repeat is harmless, as everywhere: the ledger's rows know it.
        """
        logger = get_logger("celery.worker.consumer")
        headers = message.headers
        known = {"task": headers.get("task"), "task_id": headers.get("id")}
        try:
            with broker_faults(), app.producer_or_acquire() as producer:
                _publish(producer, message, ASIDE, origin=message.delivery_info["routing_key"])
        except BrokerUnavailable as error:
            log.warning("newer_message_returned", **known, error=str(error))
            message.reject_log_error(logger, self.connection_errors, requeue=True)
            return
        log.warning("newer_message_set_aside", **known, version=headers[HEADER])
        message.ack_log_error(logger, self.connection_errors)


def bring_back() -> int:
    """Return to their queues those that this release understands; how many.

    Raises BrokerUnavailable, with some of them returned perhaps.
    """
    waiting = min(queue_depth(ASIDE), AT_ONCE)
    if not waiting:
        return 0
    returned = 0
    pool: Any = app.pool
    with broker_faults(), pool.acquire(block=True) as connection:
        connection.connect()
        channel = connection.channel()
        try:
            queue, producer = Queue(ASIDE, channel=channel), Producer(channel)
            for _ in range(waiting):
                message = queue.get()
                if message is None:
                    break
                origin = message.headers.get(ORIGIN, app.conf.task_default_queue)
                still_newer = is_newer(message.headers)
                _publish(producer, message, ASIDE if still_newer else origin, origin=origin)
                message.ack()
                returned += not still_newer
        finally:
            channel.close()
    if returned:
        log.info("newer_messages_brought_back", returned=returned)
    return returned


def _publish(producer: Any, message: Any, queue: str, *, origin: str) -> None:
    """The same message, byte for byte, to a queue."""
    properties = {
        name: message.properties[name]
        for name in ("correlation_id", "reply_to", "priority")
        if message.properties.get(name) is not None
    }
    producer.publish(
        message.body,
        exchange="",
        routing_key=queue,
        declare=[Queue(ASIDE)] if queue == ASIDE else [],
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers={**message.headers, ORIGIN: origin},
        delivery_mode=2,
        **properties,
    )
