"""An index of the campaigns in one state, which a page lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"

_LISTED = sa.text("NOT warmup")


def upgrade() -> None:
    op.create_index("ix_campaign_listed", "campaign", ["state", "id"], sqlite_where=_LISTED, postgresql_where=_LISTED)
