"""Returned mail, and its effects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "bounce_mail",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("received_at", UtcDateTime(), nullable=False),
        sa.Column("source", sa.String(24), nullable=False),
        sa.Column("mail_from", sa.String(320)),
        sa.Column("recipient", sa.String(320)),
        sa.Column("raw", sa.LargeBinary()),
        sa.Column("processed_at", UtcDateTime()),
        sa.Column("kind", sa.String(24)),
        sa.Column("verdict", sa.String(24)),
        sa.Column("rule", sa.String(100)),
        sa.Column("matched_by", sa.String(24)),
        sa.Column("touch_id", BIG_ID, sa.ForeignKey("touch.id"), index=True),
    )
    op.create_index(
        "ix_bounce_mail_waiting",
        "bounce_mail",
        ["received_at"],
        sqlite_where=sa.text("processed_at IS NULL"),
        postgresql_where=sa.text("processed_at IS NULL"),
    )
    op.create_index("ix_bounce_mail_verdict", "bounce_mail", ["verdict", "received_at"])
    op.create_table(
        "bounce_effect",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("digest", sa.String(64), sa.ForeignKey("bounce_mail.digest"), nullable=False),
        sa.Column("effect", sa.String(24), nullable=False),
        sa.Column("touch_id", BIG_ID, sa.ForeignKey("touch.id"), nullable=False, index=True),
        sa.Column("detail", sa.String(200), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.UniqueConstraint("digest", "effect", "touch_id"),
    )
