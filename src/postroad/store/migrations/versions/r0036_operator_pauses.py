"""Pauses of gates and campaigns by operators, also past ones; when a touch that a frequency cap holds was first due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    op.create_table(
        "operator_pause",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("queue", sa.String(100), nullable=False),
        sa.Column("gate", sa.String(1000), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("ends_at", UtcDateTime()),
        sa.Column("resumed_at", UtcDateTime()),
        sa.Column("resumed_by", sa.Text()),
    )
    op.create_index("ix_operator_pause_gate", "operator_pause", ["gate", "at"])
    where = sa.text("resumed_at IS NULL")
    op.create_index(
        "ux_operator_pause_open",
        "operator_pause",
        ["queue", "gate"],
        unique=True,
        sqlite_where=where,
        postgresql_where=where,
    )
    op.add_column("touch", sa.Column("first_due_at", UtcDateTime()))
