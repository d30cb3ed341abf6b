"""Cohorts are paused, one row for each pause."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "cohort_pause",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("step_id", BIG_ID, sa.ForeignKey("step.id"), nullable=False),
        sa.Column("source", sa.String(300), nullable=False),
        sa.Column("provider", sa.String(100), nullable=False),
        sa.Column("evidence", sa.String(24), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("announced_at", UtcDateTime()),
        sa.Column("lifted_at", UtcDateTime()),
        sa.Column("lifted_by", sa.String(100)),
        sa.Column("lifted_why", sa.String(500)),
    )
    op.create_index(
        "ux_cohort_pause_open",
        "cohort_pause",
        ["step_id", "source", "provider"],
        unique=True,
        sqlite_where=sa.text("lifted_at IS NULL"),
        postgresql_where=sa.text("lifted_at IS NULL"),
    )
