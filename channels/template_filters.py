"""What message templates have beside jinja2's own filters and tests: ours and the operators'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context

from channels.readable import one_line, paragraphs
from languages.language import Language


@pass_context
def size(context: Context, size_bytes: int) -> str:
    """A size as the message's language writes it, such as ``1,5 MB``."""
    t: Language = context["t"]
    if size_bytes < 1000:
        return f"{t.number(size_bytes)} B"
    if size_bytes < 1_000_000:
        return f"{t.number(round(size_bytes / 1000))} kB"
    return f"{t.decimal(size_bytes / 1e6, 1)} MB"


def is_web_address(uri: str) -> bool:
    """Whether ``uri`` may stand in a link: nothing that runs when it is clicked."""
    return uri.startswith(("https://", "http://"))


FILTERS: dict[str, Callable[..., Any]] = {"line": one_line, "paragraphs": paragraphs, "size": size}
TESTS: dict[str, Callable[..., Any]] = {"web_address": is_web_address}
