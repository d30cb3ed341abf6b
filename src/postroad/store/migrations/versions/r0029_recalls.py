"""Steps may be recalled, and campaigns may correct others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import JSON_OBJECT, UtcDateTime

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.add_column("step", sa.Column("recalled_at", UtcDateTime()))
    op.add_column("campaign", sa.Column("corrects", JSON_OBJECT))
