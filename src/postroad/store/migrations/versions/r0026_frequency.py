"""Frequency caps: campaigns name their class, and the latest messages of a recipient are found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("frequency", sa.String(100)))
    op.add_column("campaign", sa.Column("frequency_skip", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("UPDATE campaign SET frequency = 'ignore' WHERE warmup")
    op.drop_index("ix_touch_recipient", "touch")
    op.create_index("ix_touch_recipient", "touch", ["recipient_id", "settled_at"])
    op.drop_index("ix_touch_follow_up", "touch")
    where = sa.text("follow_up AND state IN ('accepted', 'skipped')")
    op.create_index(
        "ix_touch_follow_up", "touch", ["campaign_id", "step_id", "id"], sqlite_where=where, postgresql_where=where
    )
