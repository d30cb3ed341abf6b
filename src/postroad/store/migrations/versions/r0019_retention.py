"""Touches of campaigns that are over may be deleted: what an unsubscribe link needs to know of one stays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "past_touch",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("recipient_id", BIG_ID, sa.ForeignKey("recipient.id"), nullable=False),
    )
    op.add_column("campaign", sa.Column("emptied_at", UtcDateTime(), nullable=True))
