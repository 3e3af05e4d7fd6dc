"""Dead letters as the source of a replay: decoded again, after whatever was wrong is mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from listener.replay_items import Item, Page, Position, decoded_item
from listener.replay_stream import read_entry
from schemas.replays import Selection, Skip
from schemas.runs import Entry
from store.ledger import Ledger
from store.letters import Letter, page_of_letters
from store.replayed import matches

PAGE = 20
"""Letters of one look: up to 64 KiB of each were kept."""

GONE = (
    "it was not kept whole, and the entry is not in the stream any more; "
    "ask its publisher to send it again, or discard it"
)
OTHER = "it was not kept whole, and the stream has another entry under its id"


class LetterSource:
    """Dead letters by number; one that was kept in part is read from the stream once more."""

    def __init__(self, ledger: Ledger, client: Any, selection: Selection, max_bytes: int) -> None:
        self._ledger = ledger
        self._redis = client
        self._selection = selection
        self._max_bytes = max_bytes

    def pages(self, after: Position | None) -> Iterator[Page]:
        """The pages behind a letter.  Raises LedgerUnavailable, StreamUnavailable."""
        last = 0 if after is None else int(after["letter"])
        while True:
            with self._ledger.read() as connection:
                letters = page_of_letters(connection, last, PAGE, self._selection.numbers)
            letters = [letter for letter in letters if self._is_known_by_now(letter)]
            if not letters:
                return
            last = letters[-1].number
            items = [self._item(letter) for letter in letters]
            yield Page([item for item in items if self._is_selected(item)], {"letter": last})

    def fraction(self, position: Position | None) -> float:
        """By the letters' numbers."""
        whole = self._selection.last_event or 1
        return min(1.0, (0 if position is None else int(position["letter"])) / whole)

    def _is_known_by_now(self, letter: Letter) -> bool:
        """Later letters than the replay are another one's."""
        return self._selection.last_event is None or letter.number <= self._selection.last_event

    def _item(self, letter: Letter) -> Item:
        name, position = f"dead letter {letter.number}", {"letter": letter.number}
        if letter.looks > 1 and not self._selection.numbers:
            return Item(name, position, letter=letter.number, skip=Skip.SUSPECT)
        fields = letter.fields
        if not letter.whole:
            found = read_entry(self._redis, letter.stream, letter.entry_id)
            if not found or not letter.is_original(found):
                refused = OTHER if found else GONE
                return Item(name, position, letter=letter.number, refused=refused)
            fields = found
        entry = Entry(letter.stream, letter.entry_id, fields)
        return decoded_item(name, position, entry, self._max_bytes, letter=letter.number)

    def _is_selected(self, item: Item) -> bool:
        """What cannot be decoded, or is not looked at, is counted whatever the filters say."""
        if item.decoded is None:
            return True
        selection, entry_id = self._selection, item.decoded.entry.entry_id
        made_ms = int(entry_id.split("-", 1)[0])
        return (
            matches(selection, item.decoded.event)
            and (selection.since is None or made_ms >= selection.since.timestamp() * 1000)
            and (selection.until is None or made_ms <= selection.until.timestamp() * 1000)
        )
