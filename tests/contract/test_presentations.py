"""Looks and languages are frozen with their runs, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, select, update

import store
from schemas.errors import NotFound
from schemas.events import decode_entry
from schemas.presentation import PLAIN, Presentation, presentation_digest
from schemas.reports import Format
from schemas.runs import DecodedEntry, Entry, FrozenInputs, Run
from schemas.scans import decode_scan
from store import events, runs, tables
from store.events import RunDefaults
from store.ledger import Ledger
from store.presentations import ensure_presentation, load_presentation

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LOOK = Presentation(
    organisation="Ämt für Datenschutz ✓", logo=b"\x89PNG\x00\xff", cover=True, csv_bom=True
)
OTHER = Presentation(organisation="Somebody else")


def defaults(presentation: Presentation = PLAIN, **more: Any) -> RunDefaults:
    return RunDefaults((Format.CSV,), "en", "eu-baseline", presentation=presentation, **more)


def scan_data(number: int, domain: str) -> bytes:
    return json.dumps({"scan_id": str(UUID(int=number)), "domain": domain}).encode()


def entry(number: int = 1, domain: str = "a.example", **attributes: str) -> DecodedEntry:
    fields = {name.encode(): value.encode() for name, value in attributes.items()}
    if "dataref" not in attributes:
        fields.setdefault(b"data", scan_data(number, domain))
    return DecodedEntry(
        Entry("scans:events", f"{number}-0", fields), decode_entry(fields, max_bytes=1 << 20)
    )


def record(connection: Any, *entries: DecodedEntry, given: RunDefaults) -> list[str]:
    recorded = events.record_batch(
        connection,
        entries,
        [],
        defaults=given,
        now=NOW,
        dispatch_by=NOW + timedelta(minutes=1),
        new_id=lambda: str(uuid4()),
    )
    return [ticket.run_id for ticket in recorded.tickets]


def recorded(ledger: Ledger, *entries: DecodedEntry, given: RunDefaults) -> list[Run]:
    with ledger.write() as connection:
        ids = record(connection, *entries, given=given)
        return [runs.load_run(connection, run_id) for run_id in ids]


def kept(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return list(connection.execute(select(tables.presentations.c.sha256)).scalars())


@contextmanager
def statements() -> Iterator[list[str]]:
    """Every statement that reaches a database meanwhile."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_presentation_comes_back_as_it_was_by_its_digest(ledger: Ledger) -> None:
    with ledger.write() as connection:
        digest = ensure_presentation(connection, LOOK, NOW)
        assert digest == presentation_digest(LOOK)
        assert load_presentation(connection, digest) == LOOK


def test_the_plain_presentation_needs_no_row(ledger: Ledger) -> None:
    with ledger.write() as connection:
        assert ensure_presentation(connection, PLAIN, NOW) is None
        assert ensure_presentation(connection, Presentation(), NOW) is None
    assert kept(ledger) == []


def test_keeping_it_again_writes_nothing(ledger: Ledger) -> None:
    with ledger.write() as connection:
        ensure_presentation(connection, LOOK, NOW)
    with statements() as said, ledger.write() as connection:
        ensure_presentation(connection, LOOK, NOW + timedelta(days=1))
    assert not [statement for statement in said if "INSERT" in statement]
    assert kept(ledger) == [presentation_digest(LOOK)]


def test_two_that_keep_the_same_at_once_make_one_row(ledger: Ledger) -> None:
    barrier = threading.Barrier(2)

    def keep() -> str | None:
        barrier.wait(30)
        with ledger.write() as connection:
            return ensure_presentation(connection, LOOK, NOW)

    with ThreadPoolExecutor(2) as pool:
        digests = [future.result() for future in [pool.submit(keep) for _ in range(2)]]
    assert digests == [presentation_digest(LOOK)] * 2
    assert kept(ledger) == [presentation_digest(LOOK)]


def test_one_that_is_not_there_is_not_found(ledger: Ledger) -> None:
    with ledger.read() as connection, pytest.raises(NotFound, match="no presentation 0000"):
        load_presentation(connection, "0" * 64)


def test_a_run_is_recorded_with_the_look_of_the_moment(ledger: Ledger) -> None:
    (first,) = recorded(ledger, entry(1), given=defaults(LOOK))
    (second,) = recorded(ledger, entry(2), given=defaults(OTHER))
    (third,) = recorded(ledger, entry(3), given=defaults())
    assert first.inputs.presentation == presentation_digest(LOOK)
    assert second.inputs.presentation == presentation_digest(OTHER)
    assert third.inputs.presentation is None
    assert sorted(kept(ledger)) == sorted(map(presentation_digest, (LOOK, OTHER)))


def test_a_rollback_takes_run_and_look_along_and_the_next_batch_brings_both(
    ledger: Ledger,
) -> None:
    class Failed(Exception):
        pass

    def record_and_fail() -> None:
        with ledger.write() as connection:
            record(connection, entry(1), given=defaults(LOOK))
            raise Failed

    with pytest.raises(Failed):
        record_and_fail()
    assert kept(ledger) == []
    (run,) = recorded(ledger, entry(1), given=defaults(LOOK))
    assert kept(ledger) == [run.inputs.presentation]


def test_a_known_look_costs_a_batch_one_statement_however_many_events_it_holds(
    ledger: Ledger,
) -> None:
    recorded(ledger, entry(1), given=defaults(LOOK))
    counts = []
    for first, given in ((10, defaults()), (20, defaults(LOOK))):
        with statements() as said, ledger.write() as connection:
            record(
                connection,
                *(entry(first + n, f"{first + n}.example") for n in range(5)),
                given=given,
            )
        counts.append(len(said))
    assert counts[1] == counts[0] + 1


def test_a_run_from_before_there_were_looks_is_plain(ledger: Ledger) -> None:
    (run,) = recorded(ledger, entry(1), given=defaults())
    with ledger.write() as connection:
        connection.execute(
            update(tables.runs).values(inputs={"language": "en", "rule_pack": "eu-baseline-2026.1"})
        )
        old = runs.load_run(connection, run.run_id)
    assert old.inputs == FrozenInputs(language="en", rule_pack="eu-baseline-2026.1")
    assert old.inputs.presentation is None


@pytest.mark.parametrize(
    ("domain", "language"),
    [
        ("shop.de", "de"),
        ("SHOP.DE", "de"),
        ("a.b.example.fr", "fr"),
        ("special.de", "fr"),
        ("de", "en"),
        ("shop.de.example", "en"),
    ],
)
def test_a_runs_language_is_that_of_the_first_glob_that_matches_its_domain(
    ledger: Ledger, domain: str, language: str
) -> None:
    globs = (("special.*", "fr"), ("*.de", "de"), ("*.Example.fr", "fr"))
    (run,) = recorded(ledger, entry(1, domain), given=defaults(domain_languages=globs))
    assert run.inputs.language == language


def test_an_event_without_a_scan_has_the_language_of_its_domain_too(ledger: Ledger) -> None:
    given = defaults(domain_languages=(("*.de", "de"),))
    failed = entry(type="scan.failed", data='{"domain": "shop.de"}')
    assert recorded(ledger, failed, given=given)[0].inputs.language == "de"


def test_a_fetched_scan_gets_look_and_language_when_its_domain_is_known(ledger: Ledger) -> None:
    globs = (("*.de", "de"),)
    (run,) = recorded(ledger, entry(1, dataref="https://scans.example/1"), given=defaults(OTHER))
    assert run.inputs.language == "en"
    data = scan_data(1, "shop.de")
    with ledger.write() as connection:
        events.store_fetched_scan(
            connection,
            run.run_id,
            run.event_pk,
            data,
            decode_scan(data),
            defaults=defaults(LOOK, domain_languages=globs),
            now=NOW,
        )
        fetched = runs.load_run(connection, run.run_id)
        assert load_presentation(connection, str(fetched.inputs.presentation)) == LOOK
    assert fetched.inputs.language == "de"


def test_the_migration_goes_down_and_up_and_leaves_the_runs(ledger: Ledger) -> None:
    (run,) = recorded(ledger, entry(1), given=defaults())
    config = Config()
    config.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))
    with ledger.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        assert not connection.dialect.has_table(connection, "presentations")
    ledger.migrate()
    assert kept(ledger) == []
    with ledger.read() as connection:
        assert runs.load_run(connection, run.run_id) == run
