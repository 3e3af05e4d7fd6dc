"""The ledger's tables: one row per thing that must outlive every process.

Migrations build them; a test holds the two together.  All times are aware UTC
in Python.  Text that came from outside is stripped of NUL before it gets here,
because PostgreSQL cannot hold one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Utc(TypeDecorator[datetime]):
    """An aware UTC datetime on every database; SQLite keeps it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: guessing its zone is how reports get the wrong day."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime on its way into the ledger")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)  # type: ignore[no-any-return]  # driver's datetime
        return value.astimezone(UTC)  # type: ignore[no-any-return]  # driver's datetime


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

events = Table(
    "events",
    metadata,
    Column("event_pk", Integer, primary_key=True, autoincrement=True),
    Column("source", String(255), nullable=False),
    Column("event_id", String(320), nullable=False),
    Column("stream", String(255)),
    Column("entry_id", String(64)),
    Column("type", String(64)),
    Column("subject", String(255)),
    Column("user_id", String(255)),
    Column("occurred_at", Utc),
    Column("traceparent", String(255)),
    Column("dataref", Text),
    Column("payload", LargeBinary),  # zlib; for a dead letter the raw entry's first bytes
    Column("payload_size", Integer, nullable=False),  # bytes before compression and bounding
    Column("payload_sha256", String(64), nullable=False),
    # pending | done | dead | discarded | cancelled | expired | erased
    Column("outcome", String(16), nullable=False),
    Column("reason", Text),
    Column("seen", Integer, nullable=False),  # entries that carried this identity
    Column("recorded_at", Utc, nullable=False),
    UniqueConstraint("source", "event_id"),
    Index("ix_events_outcome_recorded_at", "outcome", "recorded_at"),
    Index("ix_events_stream_entry_id", "stream", "entry_id"),
)

scans = Table(
    "scans",
    metadata,
    Column("scan_id", String(36), primary_key=True),
    Column("event_pk", ForeignKey("events.event_pk"), nullable=False),  # holds the payload
    Column("domain", String(253), nullable=False),
    Column("scan_mode", Text),
    Column("finished_at", Utc, nullable=False),
    Column("cookie_count", Integer, nullable=False),
    Column("score", Integer),  # null: not judged yet, or held because inconclusive
    Column("recorded_at", Utc, nullable=False),
    Index("ix_scans_domain_finished_at", "domain", "finished_at"),
    Index("ix_scans_event_pk", "event_pk"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(36), primary_key=True),
    Column("event_pk", ForeignKey("events.event_pk"), nullable=False),
    Column("scan_id", String(36)),
    Column("kind", String(16), nullable=False),  # live | replay
    Column("replay_id", String(36)),
    Column("state", String(16), nullable=False),  # recorded|dispatched|done|dead|cancelled
    Column("attempt", Integer, nullable=False),
    Column("started_attempt", Integer, nullable=False, server_default="0"),  # last one begun
    Column("starts", Integer, nullable=False, server_default="0"),  # attempts that were begun
    Column("settling", Integer, nullable=False, server_default="0"),  # starts of the body or fetch
    Column("deadline", Utc),  # a sweep dispatches again after this; null once settled
    Column("formats", JSON, nullable=False),  # empty: the short way, no reports
    Column("inputs", JSON, nullable=False),  # frozen: what the report is a function of
    Column("last_error", Text),
    Column("created_at", Utc, nullable=False),
    Column("settled_at", Utc),
    Index("ix_runs_state_deadline", "state", "deadline"),
    Index("ix_runs_scan_id", "scan_id"),
    Index("ix_runs_event_pk", "event_pk"),
    Index("ix_runs_created_at", "created_at"),
    # Of one replay an event has one run; null, of live runs, is equal to no other null.
    Index("uq_runs_replay_id_event_pk", "replay_id", "event_pk", unique=True),
    Index("ix_runs_replay_id_state", "replay_id", "state"),
)

replays = Table(
    "replays",
    metadata,
    Column("replay_id", String(36), primary_key=True),
    Column("source", String(16), nullable=False),  # stream | archive | files | dead-letters
    Column("selection", JSON, nullable=False),
    Column("renders", Boolean, nullable=False),
    Column("tells", Boolean, nullable=False),
    Column("formats", JSON(none_as_null=True)),  # null: those that each event has
    Column("force", Boolean, nullable=False),
    Column("rate", Float, nullable=False),  # runs a second; 0: as the cap allows
    Column("in_flight", Integer, nullable=False),  # cap of runs that are not settled
    Column("state", String(16), nullable=False),  # running|done|interrupted|failed|cancelled
    Column("reason", Text),
    Column("driver", String(36), nullable=False),  # who moves it on; a resume changes it
    Column("step", Integer, nullable=False),  # transactions so far
    Column("checkpoint", JSON(none_as_null=True)),  # null: at the beginning
    Column("selected", Integer, nullable=False),
    Column("new", Integer, nullable=False),  # events that the ledger did not know
    Column("started", Integer, nullable=False),  # runs
    Column("skipped", JSON, nullable=False),  # reason → count
    Column("failed", Integer, nullable=False),
    Column("failures", JSON, nullable=False),  # the first of them by name
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Column("finished_at", Utc),
    Index("ix_replays_created_at", "created_at"),
)

presentations = Table(
    "presentations",
    metadata,
    Column("sha256", String(64), primary_key=True),  # of the content before compression
    Column("content", LargeBinary, nullable=False),  # the Presentation, JSON, zlib
    Column("created_at", Utc, nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("report_id", String(80), primary_key=True),  # <scan>.<language>.<format>
    Column("scan_id", String(36), nullable=False),
    Column("format", String(16), nullable=False),
    Column("language", String(16), nullable=False),
    Column("run_id", String(36), nullable=False),  # the run that asked last
    Column("tries", Integer, nullable=False),  # starts of rendering within that run
    Column("status", String(16), nullable=False),  # pending | ready | failed | expired
    Column("artifact_key", Text),
    Column("uri", Text),
    Column("size_bytes", Integer),
    Column("sha256", String(64)),
    Column("rule_pack", String(128)),
    Column("content_sha256", String(64)),  # of the Report it shows; null: made before this was kept
    Column("render_ms", Float),
    Column("error", Text),
    Column("replay_id", String(36)),  # the replay that made the artifact; null: another run
    Column("created_at", Utc, nullable=False),
    Column("ready_at", Utc),
    UniqueConstraint("scan_id", "format", "language"),
    Index("ix_reports_run_id", "run_id"),
    Index("ix_reports_created_at", "created_at"),
    Index("ix_reports_replay_id", "replay_id"),
)

subscribers = Table(
    "subscribers",
    metadata,
    Column("subscriber_id", String(128), primary_key=True),
    Column("user_id", String(255)),
    Column("channels", LargeBinary, nullable=False),  # encrypted: addresses are secrets
    Column("kinds", JSON(none_as_null=True)),  # of them; null: written before this was kept
    Column("preferences", JSON, nullable=False),  # events, domains, minimum severity
    Column("paused", Boolean, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index("ix_subscribers_user_id", "user_id"),
)

notifications = Table(
    "notifications",
    metadata,
    Column("event_key", String(1200), primary_key=True),
    Column("type", String(64), nullable=False),
    Column("domain", String(255)),
    Column("severity", String(16), nullable=False),
    Column("run_id", String(36)),
    Column("content", LargeBinary, nullable=False),  # the Notification, JSON, zlib; b"": forgotten
    Column("created_at", Utc, nullable=False),
    Index("ix_notifications_run_id", "run_id"),
    Index("ix_notifications_created_at", "created_at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery_id", String(36), primary_key=True),
    Column("subscriber_id", String(255), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("event_key", ForeignKey("notifications.event_key"), nullable=False),
    Column("address", LargeBinary),  # encrypted; only where no subscriber row holds it
    Column("preferences", JSON(none_as_null=True)),  # kept with such an address
    Column("state", String(16), nullable=False),  # pending|held|sending|sent|failed|suppressed
    Column("tries", Integer, nullable=False),
    Column("due_at", Utc, nullable=False),
    Column("lease_until", Utc),  # until then a message or a worker has it in hand
    Column("destination", String(300)),  # the pace key of the host that its last try went to
    Column("slot_at", Utc),  # its turn at an even pace, reserved; null: it has to ask for one
    Column("reason", Text),
    Column("held_for", String(16)),  # quiet_hours | digest; null: never held
    Column("held_until", Utc),  # as it was said when it was held last
    Column("merged_into", String(36)),  # the digest's delivery that tells of it
    Column("replay_id", String(36)),  # the replay that told; null: a live event
    Column("created_at", Utc, nullable=False),
    Column("settled_at", Utc),
    UniqueConstraint("subscriber_id", "channel", "event_key"),
    Index("ix_deliveries_merged_into", "merged_into"),
    Index("ix_deliveries_state_due_at", "state", "due_at"),
    Index("ix_deliveries_event_key", "event_key"),
    Index("ix_deliveries_replay_id_state", "replay_id", "state"),
    Index("ix_deliveries_created_at", "created_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("attempt_pk", Integer, primary_key=True, autoincrement=True),
    Column("delivery_id", ForeignKey("deliveries.delivery_id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("outcome", String(16), nullable=False),  # sent | retry | failed
    Column("status_code", Integer),
    Column("receipt", Text),  # what the other side said, bounded
    Column("error", Text),
    Index("ix_attempts_delivery_id", "delivery_id"),
    Index("ix_attempts_started_at", "started_at"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("subscriber_id", String(255), primary_key=True),
    Column("channel", String(16), primary_key=True),
    Column("failing_since", Utc),  # null: the last answer was good
    Column("last_failed_at", Utc),
    Column("failures", Integer, nullable=False, server_default="0"),  # since failing_since
    Column("disabled_at", Utc),
    Column("reason", Text),
    Column("ended_at", Utc),  # nothing waits for it any more
    Column("told_at", Utc),  # operators know
)

pacing = Table(
    "pacing",
    metadata,
    Column("pace_key", String(300), primary_key=True),  # a destination, or one subscriber's channel
    # When the next send would be due at an even pace, in seconds since 1970: a Float, because its
    # arithmetic is done in SQL.
    Column("next_at", Float, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),  # without an answer, in a row
    Column("closed_until", Utc),  # until then nothing is sent there
)

violations = Table(
    "violations",
    metadata,
    Column("domain", String(255), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("occurrence", Integer, nullable=False),  # rises when it comes back after its end
    Column("content", LargeBinary, nullable=False),  # what was found last, JSON, zlib
    Column("first_seen_at", Utc, nullable=False),
    Column("last_seen_at", Utc, nullable=False),
    Column("last_told_at", Utc, nullable=False),
    Column("reminders", Integer, nullable=False, server_default="0"),
    Column("resolved_at", Utc),
    Index("ix_violations_resolved_at", "resolved_at"),
)

standings = Table(
    "standings",
    metadata,
    Column("domain", String(255), primary_key=True),
    Column("scan_id", String(36), nullable=False),  # the newest that violations followed
    Column("event_pk", Integer, nullable=False),  # which brought that scan
    Column("finished_at", Utc, nullable=False),
)

statistics = Table(
    "statistics",
    metadata,
    Column("statistic_pk", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(64), nullable=False),
    Column("taken_at", Utc, nullable=False),
    Column("figures", JSON, nullable=False),
    Index("ix_statistics_kind_taken_at", "kind", "taken_at"),
)

chores = Table(
    "chores",
    metadata,
    Column("name", String(128), primary_key=True),  # of an entry of beat's schedule
    Column("ticked_at", Utc),  # when a beat started it last; null: never
    Column("position", Text),  # where it goes on, for one that takes several nights
)
