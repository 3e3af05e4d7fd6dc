"""Replays, and which of them made a run, an artifact or a delivery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import store.tables

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "replays",
        sa.Column("replay_id", sa.String(length=36), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("selection", sa.JSON(), nullable=False),
        sa.Column("renders", sa.Boolean(), nullable=False),
        sa.Column("tells", sa.Boolean(), nullable=False),
        sa.Column("formats", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("force", sa.Boolean(), nullable=False),
        sa.Column("rate", sa.Float(), nullable=False),
        sa.Column("in_flight", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("driver", sa.String(length=36), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("checkpoint", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("selected", sa.Integer(), nullable=False),
        sa.Column("new", sa.Integer(), nullable=False),
        sa.Column("started", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.JSON(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("failures", sa.JSON(), nullable=False),
        sa.Column("created_at", store.tables.Utc(timezone=True), nullable=False),
        sa.Column("updated_at", store.tables.Utc(timezone=True), nullable=False),
        sa.Column("finished_at", store.tables.Utc(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("replay_id", name=op.f("pk_replays")),
    )
    op.create_index("ix_replays_created_at", "replays", ["created_at"])
    op.create_index("uq_runs_replay_id_event_pk", "runs", ["replay_id", "event_pk"], unique=True)
    op.create_index("ix_runs_replay_id_state", "runs", ["replay_id", "state"])
    op.add_column("reports", sa.Column("replay_id", sa.String(length=36), nullable=True))
    op.create_index("ix_reports_replay_id", "reports", ["replay_id"])
    op.add_column("deliveries", sa.Column("replay_id", sa.String(length=36), nullable=True))
    op.create_index("ix_deliveries_replay_id_state", "deliveries", ["replay_id", "state"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_deliveries_replay_id_state", table_name="deliveries")
    op.drop_column("deliveries", "replay_id")
    op.drop_index("ix_reports_replay_id", table_name="reports")
    op.drop_column("reports", "replay_id")
    op.drop_index("ix_runs_replay_id_state", table_name="runs")
    op.drop_index("uq_runs_replay_id_event_pk", table_name="runs")
    op.drop_index("ix_replays_created_at", table_name="replays")
    op.drop_table("replays")
