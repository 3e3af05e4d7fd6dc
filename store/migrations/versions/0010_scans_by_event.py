"""Find an event's scan without a look at all of them."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_scans_event_pk", "scans", ["event_pk"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_scans_event_pk", table_name="scans")
