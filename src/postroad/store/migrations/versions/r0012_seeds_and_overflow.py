"""Mail to the seed lists of warmups, and touches that go to another sender."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("warmup", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("campaign", sa.Column("overflow", JSON_OBJECT, nullable=True))
    op.add_column("touch", sa.Column("sender_id", BIG_ID, nullable=True))
    op.create_table(
        "overflow",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("touch_id", BIG_ID, sa.ForeignKey("touch.id"), nullable=False, index=True),
        sa.Column("from_sender_id", BIG_ID, sa.ForeignKey("sender.id"), nullable=False),
        sa.Column("sender_id", BIG_ID, sa.ForeignKey("sender.id"), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("why", sa.String(200), nullable=False),
    )
