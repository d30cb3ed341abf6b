"""Touches that went to other senders name their steps, so that those of one campaign are found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID

revision = "0049"
down_revision = "0048"


def upgrade() -> None:
    op.add_column("overflow", sa.Column("step_id", BIG_ID))
    op.execute("UPDATE overflow SET step_id = (SELECT step_id FROM touch WHERE touch.id = overflow.touch_id)")
    op.create_index("ix_overflow_step", "overflow", ["step_id", "id"])
    op.create_index("ix_overflow_move", "overflow", ["step_id", "from_sender_id", "sender_id", "why", "id"])
