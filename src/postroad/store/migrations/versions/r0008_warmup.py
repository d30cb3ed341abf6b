"""Warmup: caps day by day, and who overrode one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "warmup_day",
        sa.Column("identity", sa.String(320), primary_key=True),
        sa.Column("provider", sa.String(100), primary_key=True),
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("cap", sa.BigInteger(), nullable=False),
        sa.Column("move", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("paused_until", UtcDateTime()),
        sa.Column("decided_at", UtcDateTime(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("attempts", "accepted", "bounced", "complained", "deferred", "blocked")
        ),
    )
    op.create_table(
        "warmup_override",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("identity", sa.String(320), nullable=False),
        sa.Column("provider", sa.String(100), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(100), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
    )
