"""Keep the looks that runs were recorded with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import store.tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "presentations",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", store.tables.Utc(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_presentations")),
    )


def downgrade() -> None:
    """Undo; the looks are lost, and a run recorded with one cannot render any more."""
    op.drop_table("presentations")
