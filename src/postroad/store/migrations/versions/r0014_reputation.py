"""What mailbox providers say of a sender's mail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import UtcDateTime

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "reputation_day",
        sa.Column("source", sa.String(24), primary_key=True),
        sa.Column("subject", sa.String(255), primary_key=True),
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("provider", sa.String(100), nullable=False),
        sa.Column("spam_rate", sa.Double()),
        sa.Column("messages", sa.BigInteger()),
        sa.Column("trap_hits", sa.BigInteger()),
        sa.Column("verdict", sa.String(16)),
        sa.Column("imported_at", UtcDateTime(), nullable=False),
    )
