"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "recipient",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("address", sa.String(320), nullable=False, unique=True),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("time_zone", sa.String(64)),
        sa.Column("attributes", JSON_OBJECT, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "audience",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "audience_import",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("audience_id", BIG_ID, sa.ForeignKey("audience.id"), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("rows_total", sa.Integer(), nullable=False),
        sa.Column("cursor", BIG_ID, nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("rows_done", sa.Integer(), nullable=False),
        sa.Column("imported", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime()),
        sa.UniqueConstraint("audience_id", "sha256"),
    )
    op.create_table(
        "audience_member",
        sa.Column("audience_id", BIG_ID, sa.ForeignKey("audience.id"), primary_key=True),
        sa.Column("recipient_id", BIG_ID, sa.ForeignKey("recipient.id"), primary_key=True),
        sa.Column("import_id", BIG_ID, sa.ForeignKey("audience_import.id"), nullable=False),
    )
    op.create_table(
        "refusal",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("import_id", BIG_ID, sa.ForeignKey("audience_import.id"), nullable=False, index=True),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("field", sa.String(100), nullable=False),
        sa.Column("value", sa.String(320), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
    )
    op.create_table(
        "suppression",
        sa.Column("address", sa.String(320), primary_key=True),
        sa.Column("reason", sa.String(24), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "sender",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("address", sa.String(320), nullable=False),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("reply_to", sa.String(320)),
        sa.Column("postal_address", sa.Text(), nullable=False),
        sa.Column("route", sa.String(100), nullable=False),
        sa.Column("bounce_domain", sa.String(255)),
    )
    op.create_table(
        "campaign",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("audience_id", BIG_ID, sa.ForeignKey("audience.id"), nullable=False),
        sa.Column("sender_id", BIG_ID, sa.ForeignKey("sender.id"), nullable=False),
        sa.Column("audience_file", sa.Text()),
        sa.Column("job_class", sa.String(16), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("launched_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
    )
    op.create_table(
        "step",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("settings", JSON_OBJECT, nullable=False),
        sa.UniqueConstraint("campaign_id", "position"),
    )
    op.create_table(
        "touch",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("campaign_id", BIG_ID, sa.ForeignKey("campaign.id"), nullable=False),
        sa.Column("step_id", BIG_ID, sa.ForeignKey("step.id"), nullable=False),
        sa.Column("recipient_id", BIG_ID, sa.ForeignKey("recipient.id"), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("claim", sa.Integer(), nullable=False),
        sa.Column("reply", sa.String(500)),
        sa.Column("next_at", UtcDateTime()),
        sa.Column("settled_at", UtcDateTime()),
        sa.UniqueConstraint("campaign_id", "step_id", "recipient_id"),
    )
    op.create_index(
        "ix_touch_planned",
        "touch",
        ["campaign_id", "due_at"],
        sqlite_where=sa.text("state = 'planned'"),
        postgresql_where=sa.text("state = 'planned'"),
    )
    op.create_index("ix_touch_recipient", "touch", ["recipient_id"])
    op.create_table(
        "delivery_event",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("uid", sa.String(80), nullable=False, unique=True),
        sa.Column("touch_id", BIG_ID, sa.ForeignKey("touch.id"), nullable=False, index=True),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("reply_code", sa.Integer()),
        sa.Column("enhanced_code", sa.String(12)),
        sa.Column("reply", sa.String(500)),
        sa.Column("cause", sa.String(100)),
        sa.Column("blame", sa.String(16)),
        sa.Column("next_at", UtcDateTime()),
    )
