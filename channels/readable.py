"""Text of strangers, made fit for a reader's eye.

Titles, facts and answers come from scanned websites and foreign servers.  What
a person will read passes here first: control characters cannot move a terminal,
bidirectional controls cannot turn a sentence round, a line cannot become two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from schemas.notifications import MAX_RECEIPT_CHARS
from schemas.scans import CUT_MARK

# Joiners and variation selectors stay: real scripts and emoji need them.
_INVISIBLE = (
    *range(0x00, 0x20),
    *range(0x7F, 0xA0),
    0x061C, 0x200B, 0x200E, 0x200F,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xE0000, 0xE0080),
)  # fmt: skip
_DROPPED: dict[int, str | None] = dict.fromkeys(_INVISIBLE)
_LINE_ENDS = map(ord, "\n\x0b\x0c\x85\u2028\u2029")
_LEGIBLE = _DROPPED | dict.fromkeys(_LINE_ENDS, "\n") | {ord("\t"): "\t"}

MIN_HIDDEN_CHARS = 4
"""Shorter secrets are not hidden: hiding ``/`` would blank half of every answer."""


def cut_chars(text: str, limit: int) -> str:
    """Bound ``text`` to ``limit`` characters; a cut text ends with CUT_MARK."""
    if len(text) <= limit:
        return text
    return text[: max(0, limit - len(CUT_MARK))] + CUT_MARK


def one_line(text: str, limit: int) -> str:
    """One line of at most ``limit`` visible characters, always valid Unicode."""
    # Cut first, with room to spare, so that a huge string costs no more than its bound.
    rough = text[: limit * 8].encode("utf-8", "replace").decode("utf-8")
    return cut_chars(" ".join(rough.split()).translate(_DROPPED), limit)


def legible(text: str) -> str:
    """The same text, valid Unicode without what nobody sees; its lines and spaces stay."""
    return text.encode("utf-8", "replace").decode("utf-8").translate(_LEGIBLE)


def paragraphs(text: str, limit: int) -> str:
    """Like ``one_line`` for each line of ``text``; empty lines at the edges go."""
    lines = (one_line(line, limit) for line in text[: limit * 8].splitlines())
    return cut_chars("\n".join(lines).strip(), limit)


def receipt_text(answer: bytes | str, hidden: Iterable[str] = ()) -> str:
    """What the other side said, in one bounded line.

    Servers like to repeat what they were asked: each of ``hidden`` (an address,
    a path with a token in it) is blanked out, whatever its case, the longest first.
    """
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    for secret in sorted(set(hidden), key=len, reverse=True):
        if len(secret) >= MIN_HIDDEN_CHARS and _may_hold(text, secret):
            text = re.sub(re.escape(secret), "…", text, flags=re.IGNORECASE)
    return one_line(text, MAX_RECEIPT_CHARS)


def _may_hold(text: str, secret: str) -> bool:
    """Whether to look for a secret: each has a pattern of its own, which is slow to make."""
    if len(secret) > len(text):
        return False  # a letter matches one letter, whatever its case
    return not (text.isascii() and secret.isascii()) or secret.lower() in text.lower()
