"""Steps of a running campaign may change: versions of steps, the version of a touch, and follow-ups to extend."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.add_column("step", sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column("touch", sa.Column("version", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column("campaign", sa.Column("revision", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("campaign", sa.Column("extended", JSON_OBJECT, nullable=True))
    op.create_table(
        "step_version",
        sa.Column("step_id", BIG_ID, sa.ForeignKey("step.id"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("settings", JSON_OBJECT, nullable=False),
        sa.Column("replaced_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("step_id", "version"),
    )
