"""Find the runs and deliveries of a day without a look at all of them."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_runs_created_at", "runs", ["created_at"])
    op.create_index("ix_deliveries_created_at", "deliveries", ["created_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_deliveries_created_at", table_name="deliveries")
    op.drop_index("ix_runs_created_at", table_name="runs")
