"""Requests to launch campaigns, and who approved or refused them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("approval_above", sa.BigInteger()))
    op.create_table(
        "approval",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("people", sa.BigInteger()),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("requested_at", UtcDateTime(), nullable=False),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("run_id", sa.String(36)),
        sa.Column("decided_at", UtcDateTime()),
        sa.Column("decided_by", sa.String(200)),
        sa.Column("decided_from", sa.String(200)),
        sa.Column("reason", sa.String(1000)),
        sa.Column("used_at", UtcDateTime()),
    )
    pending = sa.text("state IN ('open', 'approved') AND used_at IS NULL")
    op.create_index(
        "ux_approval_pending", "approval", ["campaign_id"], unique=True, sqlite_where=pending, postgresql_where=pending
    )
    op.create_index("ix_approval_campaign", "approval", ["campaign_id", "id"])
