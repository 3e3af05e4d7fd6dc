"""From what a replay selects to the source that hands it over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from listener.replay_archive import ArchiveSource
from listener.replay_files import FileSource
from listener.replay_items import Source
from listener.replay_letters import LetterSource
from listener.replay_stream import StreamSource, open_client, server_time_ms
from schemas.replays import ReplayRequest, ReplaySource, Selection
from store.letters import check_letters
from store.replayed import newest_event
from tasks.wiring import Wiring


def bounded(parts: Wiring, source: ReplaySource, selection: Selection) -> Selection:
    """The selection with an end: what arrives after this moment is live, and needs no replay.

    Raises NotFound for a number that is no dead letter, LedgerUnavailable, StreamUnavailable.
    """
    if source is ReplaySource.STREAM:
        if selection.last_entry is not None or selection.until is not None:
            return selection
        client = open_client(parts.settings.redis_url)
        try:
            last = str(server_time_ms(client))
        finally:
            client.close()
        return msgspec.structs.replace(selection, last_entry=last)
    if source is ReplaySource.FILES:
        return selection
    with parts.ledger.read() as connection:
        check_letters(connection, selection.numbers)
        return msgspec.structs.replace(selection, last_event=newest_event(connection))


@contextmanager
def open_source(parts: Wiring, request: ReplayRequest) -> Iterator[Source]:
    """The source of a request, for as long as it is walked."""
    selection, limit = request.selection, parts.settings.max_entry_bytes
    if request.source is ReplaySource.ARCHIVE:
        yield ArchiveSource(parts.ledger, selection)
        return
    if request.source is ReplaySource.FILES:
        yield FileSource(selection, limit)
        return
    client = open_client(parts.settings.redis_url)
    try:
        if request.source is ReplaySource.STREAM:
            yield StreamSource(client, parts.settings.consumer_group, selection, limit)
        else:
            yield LetterSource(parts.ledger, client, selection, limit)
    finally:
        client.close()
