"""Campaigns that recipients enter after the launch: how far their entry was read, and when it was closed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import JSON_OBJECT, UtcDateTime

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("entry_cursor", JSON_OBJECT, nullable=True))
    op.add_column("campaign", sa.Column("entry_closed_at", UtcDateTime()))
    where = sa.text("joined_at IS NOT NULL")
    op.create_index(
        "ix_audience_member_joined",
        "audience_member",
        ["audience_id", "joined_at", "recipient_id"],
        sqlite_where=where,
        postgresql_where=where,
    )
