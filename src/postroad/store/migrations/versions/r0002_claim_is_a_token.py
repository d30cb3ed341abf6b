"""A touch's claim is the queue's token, which needs 64 bits.

What is on the wire during the upgrade was put there by a claim that is known by its ordinal only: let the workers
stop before, or those touches become unknown.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # SQLite's integers have as many bits as they need.
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("touch", "claim", type_=sa.BigInteger(), existing_type=sa.Integer(), existing_nullable=False)
