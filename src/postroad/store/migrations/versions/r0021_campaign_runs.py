"""Which Prefect runs work on which campaign, why a campaign is paused, and why its last launch failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.create_table(
        "campaign_run",
        sa.Column("run_id", sa.String(36), primary_key=True),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
    )
    op.add_column("campaign", sa.Column("paused_at", UtcDateTime()))
    op.add_column("campaign", sa.Column("paused_by", sa.Text()))
    op.add_column("campaign", sa.Column("paused_run_id", sa.String(36)))
    op.add_column("campaign", sa.Column("launch_failed_at", UtcDateTime()))
    op.add_column("campaign", sa.Column("launch_error", sa.Text()))
    op.create_table(
        "heartbeat",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("at", UtcDateTime(), nullable=False),
    )
