"""The gate of a site and a domain with tables of their own is longer than its column was: PostgreSQL refused it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "9417"
down_revision = "0009"


def upgrade() -> None:
    # SQLite holds text to no length.
    if op.get_bind().dialect.name != "sqlite":
        for table in ("shaping_change", "shaping_reply"):
            op.alter_column(table, "gate", type_=sa.String(1000), existing_type=sa.String(450), existing_nullable=False)
