"""The condition on the recipients of a campaign."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import JSON_OBJECT

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("segment", JSON_OBJECT))
