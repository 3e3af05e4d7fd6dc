"""Which channels a subscriber has, beside the sealed addresses: known without their key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply.  Older rows are filled by a worker that opens them: no key is known here."""
    op.add_column("subscribers", sa.Column("kinds", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("subscribers", "kinds")
