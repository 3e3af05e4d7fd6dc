"""The floor of the JSON report: orjson over plain dicts and lists."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from schemas.reports import Report


def list_builtins(report: Report) -> Any:
    """The report as dicts and lists; not part of the timing."""
    return msgspec.to_builtins(report)


def write_json(plain: Any) -> bytes:
    """The bytes of ``plain``."""
    return orjson.dumps(plain)
