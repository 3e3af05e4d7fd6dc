"""How many messages wait in a queue, on any broker."""

from __future__ import annotations

from typing import Any

from tasks.app import app
from tasks.publishing import broker_faults


def queue_depth(name: str) -> int:
    """Waiting messages, by the broker's passive declare; those in a worker's hand do not count.

    With priorities Redis keeps several lists per queue, so LLEN of one would
    undercount.  Raises BrokerUnavailable.
    """
    pool: Any = app.pool
    with broker_faults(), pool.acquire(block=True) as connection:
        channel = connection.channel()
        try:
            return int(channel.queue_declare(name, passive=True).message_count)
        except connection.channel_errors:
            return 0  # nobody has used the queue yet
        finally:
            channel.close()
