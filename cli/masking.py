"""Settings as they may be shown: no secret, and no password in a URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import SecretStr

MASK = "***"

_BROKERS = re.compile(r";(?=[a-z+]+://)")
"""Between several URLs of one setting."""

_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):.*@")
"""To the last @: a password that should have been percent-encoded is one all the same."""

_KEYS = re.compile(r"(?i)([?&][^=&]*(?:password|passwd|secret|token|key|sig)[^=&]*=)[^&;#]+")


def masked(value: Any) -> Any:
    """A value for JSON, with whatever must not be shown replaced."""
    match value:
        case SecretStr():
            return MASK
        case tuple():
            return [masked(item) for item in value]
        case Path():
            return str(value)
        case str():
            return masked_url(value)
        case _:
            return value


def masked_url(text: str) -> str:
    """The same text; of a URL the password goes, and parameters that are named like one."""
    if "://" not in text:
        return text
    urls = [_PASSWORD.sub(rf"\g<1>:{MASK}@", url) for url in _BROKERS.split(text)]
    return _KEYS.sub(rf"\g<1>{MASK}", ";".join(urls))
