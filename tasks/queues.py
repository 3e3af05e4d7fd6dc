"""How many messages wait in a queue, on any broker."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import ChannelError

from tasks.app import app
from tasks.publishing import broker_faults

NOT_FOUND = "404"


def queue_depth(name: str) -> int:
    """Waiting messages, by the broker's passive declare; those in a worker's hand do not count.

    With priorities Redis keeps several lists per queue, so LLEN of one would
    undercount.  Raises BrokerUnavailable.
    """
    pool: Any = app.pool
    with broker_faults(), pool.acquire(block=True) as connection:
        connection.connect()  # after a fault kombu 5.7 puts a closed one back into its pool
        channel = connection.channel()
        try:
            return int(channel.queue_declare(name, passive=True).message_count)
        except ChannelError as error:
            if str(error.reply_code) != NOT_FOUND:
                raise
            return 0  # nobody has used the queue yet
        finally:
            channel.close()
