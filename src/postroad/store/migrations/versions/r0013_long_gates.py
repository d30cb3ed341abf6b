"""The gate of a site and a domain with tables of their own is longer than its column was: PostgreSQL refused it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for table in ("shaping_change", "shaping_reply"):
        with op.batch_alter_table(table) as altered:
            altered.alter_column("gate", type_=sa.String(1000), existing_type=sa.String(450), existing_nullable=False)
