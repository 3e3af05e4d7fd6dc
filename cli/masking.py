"""Settings as they may be shown: no secret, and no password in a URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import SecretStr

MASK = "***"

_USERINFO = re.compile(r"(?<=://)([^/?#@:]*)(?::[^/?#]*)?@")
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
    return _KEYS.sub(rf"\g<1>{MASK}", _USERINFO.sub(_hide, text))


def _hide(found: re.Match[str]) -> str:
    return f"{found[1]}:{MASK}@" if ":" in found[0] else found[0]
