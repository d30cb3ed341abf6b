"""What recipients did, for conditions; and when a recipient joined an audience."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.create_table(
        "recipient_event",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("recipient_id", BIG_ID, sa.ForeignKey("recipient.id"), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("fields", JSON_OBJECT, nullable=False),
        sa.Column("key", sa.String(200)),
    )
    op.create_index("ix_recipient_event_recipient", "recipient_event", ["recipient_id", "name", "at"])
    op.create_index("ix_recipient_event_name", "recipient_event", ["name", "id"])
    op.create_index("ix_recipient_event_at", "recipient_event", ["at"])
    op.create_index(
        "ix_recipient_event_key",
        "recipient_event",
        ["recipient_id", "name", "key"],
        unique=True,
        sqlite_where=sa.text("key IS NOT NULL"),
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    # NULL: before this revision.
    op.add_column("audience_member", sa.Column("joined_at", UtcDateTime()))
