"""Count an address's failures, and keep when the last one was and when its waiting ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import store.tables

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "endpoints", sa.Column("last_failed_at", store.tables.Utc(timezone=True), nullable=True)
    )
    op.add_column(
        "endpoints", sa.Column("ended_at", store.tables.Utc(timezone=True), nullable=True)
    )
    op.add_column(
        "endpoints", sa.Column("failures", sa.Integer(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column("endpoints", "failures")
    op.drop_column("endpoints", "ended_at")
    op.drop_column("endpoints", "last_failed_at")
