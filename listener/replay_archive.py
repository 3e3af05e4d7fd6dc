"""The ledger as the source of a replay: its events in the order of their recording."""

from __future__ import annotations

from collections.abc import Iterator

from listener.replay_items import Item, Page, Position
from schemas.replays import Selection
from store.ledger import Ledger
from store.replayed import page_of_archive


class ArchiveSource:
    """Events up to ``selection.last_event``, page by page; no payload is read but for a status."""

    def __init__(self, ledger: Ledger, selection: Selection) -> None:
        self._ledger = ledger
        self._selection = selection

    def pages(self, after: Position | None) -> Iterator[Page]:
        """The pages behind an event.  Raises LedgerUnavailable."""
        last = 0 if after is None else int(after["event"])
        while True:
            with self._ledger.read() as connection:
                chosen, seen = page_of_archive(connection, self._selection, last)
            if seen is None:
                return
            last = seen
            items = [Item(f"event {pk}", {"event": pk}, event_pk=pk) for pk in chosen]
            yield Page(items, {"event": last})

    def fraction(self, position: Position | None) -> float:
        """By the events' numbers."""
        whole = self._selection.last_event or 1
        return min(1.0, (0 if position is None else int(position["event"])) / whole)
