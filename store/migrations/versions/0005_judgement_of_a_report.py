"""Say of every artifact which Report it shows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("reports", sa.Column("content_sha256", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("reports", "content_sha256")
