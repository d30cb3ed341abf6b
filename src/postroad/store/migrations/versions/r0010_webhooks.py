"""What a reply does to a campaign, and tokens that webhooks take once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import UtcDateTime

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("on_reply", sa.String(24), nullable=False, server_default=sa.text("'stop'")))
    op.create_table(
        "webhook_token",
        sa.Column("token", sa.String(64), primary_key=True),
        sa.Column("seen_at", UtcDateTime(), nullable=False, index=True),
    )
