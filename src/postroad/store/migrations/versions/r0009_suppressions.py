"""Suppressions may be for one audience, and lifting one is recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # Recreated: SQLite cannot change a key.
    op.rename_table("suppression", "suppression_before")
    op.create_table(
        "suppression",
        sa.Column("address", sa.String(320), nullable=False),
        sa.Column("audience_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("reason", sa.String(24), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("address", "audience_id"),
    )
    op.execute(
        "INSERT INTO suppression (address, reason, source, created_at) "
        "SELECT address, reason, source, created_at FROM suppression_before"
    )
    op.drop_table("suppression_before")
    op.create_table(
        "lifted_suppression",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("address", sa.String(320), nullable=False, index=True),
        sa.Column("audience_id", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(24), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("lifted_at", UtcDateTime(), nullable=False),
        sa.Column("lifted_by", sa.String(100), nullable=False),
        sa.Column("why", sa.String(200), nullable=False),
    )
