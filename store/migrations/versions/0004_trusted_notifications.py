"""Digests, the health of addresses, an even pace, violations from their start to their end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import store.tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("deliveries", sa.Column("preferences", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("deliveries", sa.Column("destination", sa.String(length=300), nullable=True))
    op.add_column(
        "deliveries", sa.Column("slot_at", store.tables.Utc(timezone=True), nullable=True)
    )
    op.add_column("deliveries", sa.Column("held_for", sa.String(length=16), nullable=True))
    op.add_column(
        "deliveries",
        sa.Column("held_until", store.tables.Utc(timezone=True), nullable=True),
    )
    op.add_column("deliveries", sa.Column("merged_into", sa.String(length=36), nullable=True))
    op.create_index("ix_deliveries_merged_into", "deliveries", ["merged_into"])
    op.create_table(
        "endpoints",
        sa.Column("subscriber_id", sa.String(length=255), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("failing_since", store.tables.Utc(timezone=True), nullable=True),
        sa.Column("disabled_at", store.tables.Utc(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("told_at", store.tables.Utc(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("subscriber_id", "channel", name=op.f("pk_endpoints")),
    )
    op.create_table(
        "pacing",
        sa.Column("pace_key", sa.String(length=300), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("closed_until", store.tables.Utc(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("pace_key", name=op.f("pk_pacing")),
    )
    op.create_table(
        "violations",
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("occurrence", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("first_seen_at", store.tables.Utc(timezone=True), nullable=False),
        sa.Column("last_seen_at", store.tables.Utc(timezone=True), nullable=False),
        sa.Column("last_told_at", store.tables.Utc(timezone=True), nullable=False),
        sa.Column("reminders", sa.Integer(), server_default="0", nullable=False),
        sa.Column("resolved_at", store.tables.Utc(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("domain", "fingerprint", name=op.f("pk_violations")),
    )
    op.create_index("ix_violations_resolved_at", "violations", ["resolved_at"])
    op.create_table(
        "standings",
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("scan_id", sa.String(length=36), nullable=False),
        sa.Column("event_pk", sa.Integer(), nullable=False),
        sa.Column("finished_at", store.tables.Utc(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("domain", name=op.f("pk_standings")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("standings")
    op.drop_index("ix_violations_resolved_at", table_name="violations")
    op.drop_table("violations")
    op.drop_table("pacing")
    op.drop_table("endpoints")
    op.drop_index("ix_deliveries_merged_into", table_name="deliveries")
    op.drop_column("deliveries", "merged_into")
    op.drop_column("deliveries", "held_until")
    op.drop_column("deliveries", "held_for")
    op.drop_column("deliveries", "slot_at")
    op.drop_column("deliveries", "destination")
    op.drop_column("deliveries", "preferences")
