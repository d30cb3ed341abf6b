"""Rollouts: touches that a launch withholds, and the shares with which they are released."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    op.add_column("campaign", sa.Column("rollout", JSON_OBJECT, nullable=True))
    op.add_column("touch", sa.Column("share", sa.SmallInteger()))
    withheld = sa.text("state = 'withheld'")
    op.create_index(
        "ix_touch_withheld",
        "touch",
        ["campaign_id", "share", "id"],
        sqlite_where=withheld,
        postgresql_where=withheld,
    )
    op.create_table(
        "rollout_share",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("number", sa.SmallInteger, nullable=False),
        sa.Column("basis_points", sa.Integer, nullable=False),
        sa.Column("people", sa.BigInteger, nullable=False),
        sa.Column("opened_at", UtcDateTime()),
        sa.Column("opened_by", sa.String(200)),
        sa.Column("held_since", UtcDateTime()),
        sa.Column("held_because", sa.String(40)),
        sa.Column("held_why", sa.String(500)),
        sa.Column("judged", sa.String(500)),
        sa.UniqueConstraint("campaign_id", "number"),
    )
