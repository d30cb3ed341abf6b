"""Attachments and images of steps, by their digests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "stored_file",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("octets", sa.LargeBinary(), nullable=False),
    )
