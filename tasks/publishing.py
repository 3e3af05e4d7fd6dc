"""Whatever Celery, kombu or their Redis client raise while publishing, translated once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amqp.exceptions import AMQPError
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from schemas.errors import BrokerUnavailable
from tasks.engines import ANSWER_S
from tasks.redis_server import told

_FAULTS = (KombuError, CeleryError, RedisError, AMQPError, OSError)


@contextmanager
def broker_faults() -> Iterator[None]:
    """Raises BrokerUnavailable, after which anything may have been published in part."""
    try:
        yield
    except _FAULTS as error:
        raise BrokerUnavailable(f"broker: {_told(error)}") from error
    except RuntimeError as error:
        # How Celery says that it tried its result store often enough; any other is a bug.
        if not isinstance(error.__cause__, _FAULTS):
            raise
        raise BrokerUnavailable(f"result store: {told(error.__cause__)}") from error


def _told(error: BaseException) -> str:
    """One line, and what to do where we know it."""
    if isinstance(error.__cause__, TimeoutError):  # kombu's own words are empty then
        return (
            f"no answer within {ANSWER_S} s; is it at work, and has RabbitMQ memory and disk left? "
            "See: rabbitmqctl status"
        )
    if "ACCESS_REFUSED" in str(error):
        advice = "user, password or virtual host in CELERY_BROKER_URL are not what RabbitMQ has"
    elif "PRECONDITION_FAILED" in str(error):
        advice = "this queue was declared otherwise: see docs/brokers.md"
    else:
        advice = ""
    return told(error, advice)
