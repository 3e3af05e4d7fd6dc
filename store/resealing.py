"""After a key is rotated: what was sealed with an older key, sealed again with the newest.

Until then every older key is needed; afterwards it can be thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column, Table, select, update

from store.ledger import Ledger
from store.secrets import SecretBox
from store.subscribers import note_kinds
from store.tables import deliveries, subscribers

BATCH = 500
"""Rows of one transaction: others write in between."""

SEALED: dict[str, tuple[Table, Column[str], Column[bytes]]] = {
    "subscribers": (subscribers, subscribers.c.subscriber_id, subscribers.c.channels),
    "deliveries": (deliveries, deliveries.c.delivery_id, deliveries.c.address),
}
"""Whatever a secret box has sealed: table, key and column."""


def reseal_all(ledger: Ledger, box: SecretBox) -> dict[str, tuple[int, int]]:
    """By table: how many were sealed again, of how many.

    May be killed and repeated: what is done stays done.  A row that is written
    meanwhile is left to its writer.  Raises InvalidSettings for a row that fits
    no key; those before it are done.
    """
    note_kinds(ledger, box)
    return {name: _totals(ledger, box, *place) for name, place in SEALED.items()}


def count_sealed(ledger: Ledger, box: SecretBox, limit: int | None = None) -> tuple[int, int]:
    """Addresses that are still to be used, and those of them that no key opens.

    Every subscriber's, and those that a delivery brought along and that is not
    settled; of each at most ``limit``.  Reads only.  Raises LedgerUnavailable.
    """
    total = closed = 0
    waiting = select(deliveries.c.address).where(
        deliveries.c.address.is_not(None), deliveries.c.settled_at.is_(None)
    )
    with ledger.read() as connection:
        for query in (select(subscribers.c.channels), waiting):
            for (token,) in connection.execution_options(yield_per=BATCH).execute(
                query.limit(limit)
            ):
                total += 1
                closed += not box.opens(token)
    return total, closed


def _totals(
    ledger: Ledger, box: SecretBox, table: Table, key: Column[str], sealed: Column[bytes]
) -> tuple[int, int]:
    done = total = 0
    for changed, seen in _batches(ledger, box, table, key, sealed):
        done += changed
        total += seen
    return done, total


def _batches(
    ledger: Ledger, box: SecretBox, table: Table, key: Column[str], sealed: Column[bytes]
) -> Iterator[tuple[int, int]]:
    query = select(key, sealed).where(sealed.is_not(None)).order_by(key).limit(BATCH)
    page = query
    while True:
        changed = 0
        with ledger.write() as connection:
            rows = connection.execute(page).all()
            for identity, old in rows:
                new = box.reseal(old)
                if new is not None:
                    changed += connection.execute(
                        update(table).where(key == identity, sealed == old).values({sealed: new})
                    ).rowcount
        if not rows:
            return
        yield changed, len(rows)
        page = query.where(key > rows[-1][0])
