"""Publish events as a scanner would, by plain XADD: for the CLI, the demo and trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from schemas.errors import StreamUnavailable
from tasks.redis_server import ASK, open_client, told

TIMEOUT_S = 10.0


def publish(url: str, stream: str, events: Sequence[Mapping[Any, Any]]) -> list[str]:
    """XADD each event's fields in one round trip; return the entry ids.

    Raises StreamUnavailable, after which some events may have been published;
    publishing all again is harmless, their identity makes the repeat a count.
    """
    client = open_client(url, timeout_s=TIMEOUT_S)
    try:
        with client.pipeline(transaction=False) as pipe:
            for fields in events:
                pipe.xadd(stream, dict(fields))
            return [entry_id.decode() for entry_id in pipe.execute()]
    except (RedisError, OSError) as error:
        raise StreamUnavailable(f"redis at {_address(url)}: {told(error, ASK)}") from error
    finally:
        client.close()


def _address(url: str) -> str:
    """The URL without its credentials, which may stand in front or among its options."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
