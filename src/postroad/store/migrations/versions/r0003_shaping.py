"""Changes of how fast a sender may go, and the hours in which a campaign may send."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("sending_window", JSON_OBJECT))
    op.create_table(
        "shaping_change",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("gate", sa.String(450), nullable=False),
        sa.Column("rule", sa.String(100), nullable=False),
        sa.Column("sender", sa.String(320), nullable=False),
        sa.Column("provider", sa.String(100)),
        sa.Column("reply", sa.String(500), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime()),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.Column("rate_count", sa.Float()),
        sa.Column("rate_per_ms", sa.BigInteger()),
        sa.Column("connections", sa.Integer()),
        sa.Column("share", sa.Float()),
        sa.Column("moved_at", UtcDateTime()),
        sa.Column("restored_at", UtcDateTime()),
        sa.Column("restored_by", sa.String(100)),
    )
    op.create_index(
        "ux_shaping_change_open",
        "shaping_change",
        ["gate", "rule"],
        unique=True,
        sqlite_where=sa.text("restored_at IS NULL"),
        postgresql_where=sa.text("restored_at IS NULL"),
    )
    op.create_table(
        "shaping_reply",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("gate", sa.String(450), nullable=False),
        sa.Column("rule", sa.String(100), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False, index=True),
    )
