"""What beats have started, so that two of them do not start it twice; where long chores go on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import store.tables

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("ticked_at", store.tables.Utc(timezone=True), nullable=True),
        sa.Column("position", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("chores")
