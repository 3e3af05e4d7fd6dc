"""Who is told, asked of SQLite and of PostgreSQL alike: matching at scale, keys that change."""

from __future__ import annotations

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from schemas.errors import InvalidSettings
from schemas.events import EventType
from schemas.notifications import (
    ChannelAddress,
    ChannelKind,
    Digest,
    DigestRhythm,
    Notification,
    QuietHours,
    Subscriber,
)
from schemas.reports import Severity
from store import resealing, tables
from store.deliveries import Recipient, plan_deliveries, save_notification
from store.ledger import Ledger
from store.secrets import SecretBox
from store.subscribers import (
    BATCH,
    find_record,
    find_subscriber,
    list_subscribers,
    match_subscribers,
    remove_subscriber,
    save_subscriber,
    wants_domain,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
HOOK = ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://h.example/", secret="whsec_x")


class CountingBox(SecretBox):
    """Counts what it opens."""

    opened = 0

    def open(self, sealed: bytes) -> bytes:
        self.opened += 1
        return super().open(sealed)


def news(key: str = "k", domain: str | None = "shop.example", **fields: Any) -> Notification:
    return Notification(
        event_key=key,
        type=EventType.SCAN_COMPLETED,
        occurred_at=NOW,
        domain=domain,
        scan_id=None,
        severity=fields.pop("severity", Severity.MEDIUM),
        title="t",
        summary="s",
        **fields,
    )


def save(ledger: Ledger, box: SecretBox, *many: Subscriber, now: datetime = NOW) -> None:
    with ledger.write() as connection:
        for subscriber in many:
            save_subscriber(connection, subscriber, box, now)


def test_every_wish_survives_the_ledger(ledger: Ledger) -> None:
    anna = Subscriber(
        subscriber_id="anna",
        channels=(HOOK,),
        events=("scan.failed",),
        domains=("*.example",),
        min_severity=Severity.LOW,
        quiet_hours=QuietHours(start="22:00", end="06:00", time_zone="Asia/Kathmandu"),
        digest=Digest(rhythm=DigestRhythm.DAILY, below=Severity.MEDIUM, at="07:00"),
        locale="de",
        attach=("pdf",),
        paused=True,
    )
    box = SecretBox([OLD])
    save(ledger, box, anna)
    later = NOW.replace(hour=9)
    save(ledger, box, anna, now=later)
    with ledger.read() as connection:
        assert find_subscriber(connection, "anna", box) == anna
        record = find_record(connection, "anna")
        assert record is not None
        assert (record.created_at, record.changed_at) == (NOW, later)
        assert record.subscriber.channels == ()
        assert find_record(connection, "ben") is None


def test_a_row_of_the_earlier_release_is_read_with_defaults(ledger: Ledger) -> None:
    box = SecretBox([OLD])
    save(ledger, box, Subscriber(subscriber_id="anna", channels=(HOOK,)))
    with ledger.write() as connection:
        connection.execute(
            update(tables.subscribers).values(
                preferences={"events": [], "domains": ["*.example"], "min_severity": "low"}
            )
        )
    with ledger.read() as connection:
        assert find_subscriber(connection, "anna", box) == Subscriber(
            subscriber_id="anna",
            channels=(HOOK,),
            domains=("*.example",),
            min_severity=Severity.LOW,
        )
        record = find_record(connection, "anna")
        assert record is not None
        assert record.changed_at is None


def test_all_that_match_are_found_and_only_their_addresses_are_opened(ledger: Ledger) -> None:
    box = CountingBox([OLD])
    count = 2 * BATCH + 1
    many = [
        Subscriber(
            subscriber_id=f"s{number:05}",
            channels=(HOOK,),
            domains=("shop.example",) if number % 100 == 0 else (f"*.c{number}.example",),
        )
        for number in range(count)
    ]
    save(ledger, box, *many)
    with ledger.read() as connection:
        found = list(match_subscribers(connection, [news("a"), news("b", "x.org")], None, box))
    assert [subscriber.subscriber_id for subscriber, _ in found] == [
        f"s{number:05}" for number in range(0, count, 100)
    ]
    assert {tuple(item.event_key for item in wanted) for _, wanted in found} == {("a",)}
    assert {subscriber.channels for subscriber, _ in found} == {(HOOK,)}
    assert box.opened == len(found)


def test_nobody_is_matched_where_there_is_nobody(ledger: Ledger) -> None:
    with ledger.read() as connection:
        assert list(match_subscribers(connection, [news()], "u", SecretBox([OLD]))) == []


GLOBS = st.text("ab.*?[]!-", max_size=6)


@given(glob=GLOBS, domain=st.text("ab.-[", max_size=6))
def test_the_short_way_of_a_glob_is_the_long_one(glob: str, domain: str) -> None:
    subscriber = Subscriber(subscriber_id="a", domains=(glob,))
    assert wants_domain(subscriber, news(domain=domain)) is fnmatchcase(domain, glob)


# Keys


def tell_directly(ledger: Ledger, box: SecretBox, count: int) -> None:
    with ledger.write() as connection:
        save_notification(connection, news(), None, NOW)
        plan_deliveries(
            connection,
            "k",
            [Recipient(f"direct:{number}", HOOK, keep_address=True) for number in range(count)]
            + [Recipient("anna", HOOK)],
            now=NOW,
            started_by=NOW,
            new_id=iter(map(str, range(count + 1))).__next__,
            box=box,
        )


def test_a_rekey_seals_everything_again_and_the_old_key_can_go(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resealing, "BATCH", 2)
    old, both, new = SecretBox([OLD]), SecretBox([NEW, OLD]), SecretBox([NEW])
    save(ledger, old, *(Subscriber(subscriber_id=str(n), channels=(HOOK,)) for n in range(5)))
    save(ledger, both, Subscriber(subscriber_id="fresh", channels=(HOOK,)))
    tell_directly(ledger, old, 3)
    assert resealing.reseal_all(ledger, both) == {"subscribers": (5, 6), "deliveries": (3, 3)}
    assert resealing.reseal_all(ledger, both) == {"subscribers": (0, 6), "deliveries": (0, 3)}
    with ledger.read() as connection:
        assert len(list_subscribers(connection, new)) == 6
        for sealed in connection.execute(select(tables.deliveries.c.address)).scalars():
            assert sealed is None or new.open(sealed)


def test_a_rekey_without_the_old_key_stops_at_what_it_cannot_read(ledger: Ledger) -> None:
    save(ledger, SecretBox([OLD]), Subscriber(subscriber_id="anna", channels=(HOOK,)))
    with pytest.raises(InvalidSettings, match="fits none of the encryption keys"):
        resealing.reseal_all(ledger, SecretBox([NEW]))
    with ledger.write() as connection:
        assert find_subscriber(connection, "anna", SecretBox([OLD])) is not None
        assert remove_subscriber(connection, "anna", NOW)
