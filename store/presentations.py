"""Presentations by content: the look that a run was recorded with outlives the operator's file.

Nothing deletes them: they are few, one for each look there ever was, and a
report rendered again next year needs its own.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

import msgspec
from sqlalchemy import Connection, select

from schemas.errors import NotFound
from schemas.presentation import PLAIN, Presentation, encode_presentation, presentation_digest
from store.ledger import insert, pack, unpack
from store.tables import presentations

_decoder = msgspec.json.Decoder(Presentation)
_digest = lru_cache(maxsize=4)(presentation_digest)  # a logo is hashed once, not with every batch


def ensure_presentation(
    connection: Connection, presentation: Presentation, now: datetime
) -> str | None:
    """Keep a presentation and return its digest; None for the plain one, which needs no row.

    Looks before it writes and remembers nothing, so that neither a rollback nor a
    ledger brought back from yesterday leaves a run without its look.  Safe to repeat.
    """
    if presentation == PLAIN:
        return None
    digest = _digest(presentation)
    known = connection.execute(
        select(presentations.c.sha256).where(presentations.c.sha256 == digest)
    ).first()
    if known is None:
        connection.execute(
            insert(connection, presentations)
            .values(sha256=digest, content=pack(encode_presentation(presentation)), created_at=now)
            .on_conflict_do_nothing()
        )
    return digest


def load_presentation(connection: Connection, digest: str) -> Presentation:
    """The presentation of this digest.  Raises NotFound."""
    content = connection.execute(
        select(presentations.c.content).where(presentations.c.sha256 == digest)
    ).scalar_one_or_none()
    if content is None:
        raise NotFound(f"no presentation {digest} in the ledger; restore its row from a backup")
    return _decoder.decode(unpack(content))
