"""What receivers made of the canaries of senders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0050"
down_revision = "0049"


def upgrade() -> None:
    op.create_table(
        "canary_report",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("sender", sa.String(320), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("findings", JSON_OBJECT, nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_canary_report_sender", "canary_report", ["sender", "id"])
