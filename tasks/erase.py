"""Erasing a subscriber or a domain: all that is kept of them, and a receipt of what it was.

Work under way ends first.  Then page by page, each a short transaction: names
are noted, artifacts deleted, rows deleted.  Killed anywhere, the same command
does the rest, and its receipt is one of the rest.

What is recorded or planned while this runs is looked for again, until a look
finds nothing.  Two moments remain.  A listener that read the domain's earlier
scans before they went, and commits its new event after the last look, keeps
that event with its comparison: it is a new event, and erasing again takes it.
A worker that has rendered a report and not yet noted it finds its run gone and
deletes what it put; killed just then, it leaves an orphan to the nightly search.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TextIO

import structlog
from sqlalchemy import Connection

from schemas.errors import NotFound
from store import erasing
from store.erasing import DomainEvent, Names
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.erase")

BATCH = 100
"""Rows of one transaction."""

Progress = Callable[[str, int], None]


@dataclass(slots=True)
class Receipt:
    """What was erased, or would be: numbers by table, artifacts with their bytes, and a digest.

    The digest is the SHA-256 of the list of what was removed, a line of table and
    name each, in the order of its removal; the list itself goes to ``listing``,
    where there is one, and is kept nowhere else.
    """

    dry_run: bool
    began_at: datetime
    listing: TextIO | None = None
    progress: Progress = lambda _table, _done: None
    counts: dict[str, int] = field(default_factory=dict)
    artifact_bytes: int = 0
    cancelled: int = 0
    ended_at: datetime | None = None
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def note(self, names: Names) -> None:
        """Count what goes now, and add it to the digest."""
        for table, found in names.items():
            self.counts[table] = self.counts.get(table, 0) + len(found)
            for name in found:
                line = f"{table}\t{name.translate(_ONE_LINE)}\n"
                self._digest.update(line.encode("utf-8", "replace"))
                if self.listing is not None:
                    self.listing.write(line)
            self.progress(table, self.counts[table])

    @property
    def sha256(self) -> str:
        """The digest."""
        return self._digest.hexdigest()


_ONE_LINE = {ord("\n"): "\\n", ord("\r"): "\\r"}


def erase_domain(parts: Wiring, domain: str, receipt: Receipt) -> None:
    """Erase what is kept of a domain, named exactly; subdomains are others.

    Of each event its bare identity stays, so that it does not come back to life.
    Raises LedgerUnavailable, ArtifactsUnavailable.
    """
    if not receipt.dry_run:
        for events in _pages(parts, domain):
            _cancel(parts, events, receipt)
    found = True
    while found:
        found = False
        for events in _pages(parts, domain):
            found = True
            _erase_events(parts, events, receipt)
        # after the runs that told it: a run without its news would be a gap
        found = _erase_news(parts, domain, receipt) or found
        if receipt.dry_run:
            break
    _erase_dead_letters(parts, domain, receipt)
    with _transaction(parts, receipt) as connection:
        receipt.note(erasing.names_of_domain(connection, domain))
        if not receipt.dry_run:
            erasing.erase_domain_rows(connection, domain)
    _end(parts, receipt)


def erase_subscriber(parts: Wiring, subscriber_id: str, receipt: Receipt) -> None:
    """Erase what is kept of a subscriber.  Raises NotFound, LedgerUnavailable.

    One whose row was removed before is known by the deliveries that were made.
    """
    with _transaction(parts, receipt) as connection:
        person = erasing.find_person(connection, subscriber_id)
        known = person.is_subscriber or erasing.find_deliveries_to(connection, person, "", 1)
        if not known:
            raise NotFound(f"nothing is kept of a subscriber {subscriber_id!r}")
        receipt.note(erasing.names_of_person(connection, person))
        if not receipt.dry_run:
            erasing.erase_person(connection, person)
    after = ""
    while True:
        with _transaction(parts, receipt) as connection:
            page = erasing.find_deliveries_to(connection, person, after, BATCH)
            receipt.note(erasing.names_of_deliveries(connection, page))
            if not receipt.dry_run:
                erasing.erase_deliveries(connection, page)
        if not page:
            break
        after = page[-1] if receipt.dry_run else ""  # deleted ones are not met again
    _end(parts, receipt)


def _cancel(parts: Wiring, events: Sequence[DomainEvent], receipt: Receipt) -> None:
    """End unfinished runs before anything of them is deleted."""
    with parts.ledger.write() as connection:
        receipt.cancelled += erasing.cancel_runs(
            connection, [event.event_pk for event in events], parts.clock()
        )


def _erase_events(parts: Wiring, events: Sequence[DomainEvent], receipt: Receipt) -> None:
    """A page of events.

    Artifacts go before the rows that name them, and once more after: what a worker
    has put in between, and noted, is named by nothing any more.
    """
    event_pks = [event.event_pk for event in events]
    if not receipt.dry_run:
        _cancel(parts, events, receipt)  # those recorded since the first look
    _erase_artifacts(parts, events, receipt)
    with _transaction(parts, receipt) as connection:
        receipt.note(erasing.names_of_events(connection, event_pks))
        if not receipt.dry_run:
            erasing.erase_events(connection, event_pks, parts.clock())
    if not receipt.dry_run:
        _erase_artifacts(parts, events, receipt)


def _erase_artifacts(parts: Wiring, events: Sequence[DomainEvent], receipt: Receipt) -> None:
    for start in [start for event in events for start in event.artifacts]:
        folder, _, name = start.partition("/")
        for page in parts.artifacts.list_all(folder):
            ours = [item for item in page if item.key.startswith(f"{folder}/{name}")]
            if ours and not receipt.dry_run:
                parts.artifacts.delete_many([item.key for item in ours])
            receipt.note({"artifacts": sorted(item.key for item in ours)})
            receipt.artifact_bytes += sum(item.size for item in ours)


def _erase_news(parts: Wiring, domain: str, receipt: Receipt) -> bool:
    """What was told of the domain, with its deliveries.  False: nothing was."""
    after = ""
    while True:
        with _transaction(parts, receipt) as connection:
            keys = erasing.find_domain_news(connection, domain, after, BATCH)
            receipt.note(erasing.names_of_news(connection, keys))
            if keys and not receipt.dry_run:
                erasing.erase_news(connection, keys, domain)
        if not keys:
            return bool(after)
        after = keys[-1]


def _erase_dead_letters(parts: Wiring, domain: str, receipt: Receipt) -> None:
    after: int | None = 0
    while after is not None:
        with _transaction(parts, receipt) as connection:
            found, after = erasing.find_dead_letters(connection, domain, after, BATCH)
            if found:
                receipt.note({"dead_letters": [str(event_pk) for event_pk in found]})
                if not receipt.dry_run:
                    erasing.erase_events(connection, found, parts.clock())


def _pages(parts: Wiring, domain: str) -> Iterator[list[DomainEvent]]:
    after = 0
    while True:
        with parts.ledger.read() as connection:
            page = erasing.find_domain_events(connection, domain, after, BATCH)
        if not page:
            return
        yield page
        after = page[-1].event_pk


def _transaction(parts: Wiring, receipt: Receipt) -> AbstractContextManager[Connection]:
    return parts.ledger.read() if receipt.dry_run else parts.ledger.write()


def _end(parts: Wiring, receipt: Receipt) -> None:
    receipt.ended_at = parts.clock()
    if not receipt.dry_run:
        # the receipt says of whom; the log must not keep the name
        log.info("erased", **receipt.counts, cancelled=receipt.cancelled, sha256=receipt.sha256)
