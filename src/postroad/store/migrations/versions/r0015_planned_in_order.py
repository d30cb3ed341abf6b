"""Due touches are submitted in order of their times: in the index of planned touches the ids follow the times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.drop_index("ix_touch_planned", "touch")
    op.create_index(
        "ix_touch_planned",
        "touch",
        ["campaign_id", "due_at", "id"],
        sqlite_where=sa.text("state = 'planned'"),
        postgresql_where=sa.text("state = 'planned'"),
    )
