"""What is kept of an answer: never a secret of ours that the other side repeats."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from channels.readable import MIN_HIDDEN_CHARS, receipt_text

letters = st.text("aAsSkKiI/-ſKıİ…é", max_size=12)
"""Letters that are others in another case, beyond ASCII too."""


@given(st.lists(letters, max_size=4), st.lists(letters, max_size=4))
def test_a_secret_is_blanked_out_in_any_case(pieces: list[str], secrets: list[str]) -> None:
    text = receipt_text("".join([*pieces, *secrets]), secrets)
    for secret in secrets:
        if len(secret) >= MIN_HIDDEN_CHARS:
            assert not re.search(re.escape(secret), text, re.IGNORECASE) or "…" in secret


def test_a_short_answer_holds_no_long_secret_and_stays() -> None:
    assert receipt_text(b"ok", ["whsec_0123456789"]) == "ok"
    assert receipt_text(b"not for you: WHSEC_0123456789", ["whsec_0123456789"]) == "not for you: …"
