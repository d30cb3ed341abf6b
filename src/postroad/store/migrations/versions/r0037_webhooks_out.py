"""Endpoints that get events by webhook, their deliveries, and the log of attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0037"
down_revision = "0036"

_OPEN = sa.text("state IN ('waiting', 'dead')")
_NEWEST = "(SELECT COALESCE(max(id), 0) FROM delivery_event)"


def upgrade() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("name", sa.String(50), primary_key=True),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("disabled_at", UtcDateTime()),
        sa.Column("disabled_for", sa.String(200)),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("endpoint", sa.String(50), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.String(40), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("settled_at", UtcDateTime()),
        sa.UniqueConstraint("endpoint", "message_id", "round"),
    )
    op.create_index(
        "ix_webhook_delivery_open",
        "webhook_delivery",
        ["endpoint", "state", "id"],
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("ix_webhook_delivery_created_at", "webhook_delivery", ["created_at"])
    op.create_table(
        "webhook_attempt",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("endpoint", sa.String(50), nullable=False),
        sa.Column("message_id", sa.String(40), nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.String(300)),
    )
    op.create_index("ix_webhook_attempt_endpoint", "webhook_attempt", ["endpoint", "id"])
    op.create_index("ix_webhook_attempt_message", "webhook_attempt", ["message_id", "id"])
    op.create_index("ix_webhook_attempt_at", "webhook_attempt", ["at"])
    if op.get_bind().dialect.name == "sqlite":
        # SQLite uses the greatest ids again after their rows are deleted. A cursor may not be beyond the next id.
        op.execute(
            "CREATE TRIGGER webhook_cursor_after_delete AFTER DELETE ON delivery_event "
            f"WHEN OLD.id > {_NEWEST} BEGIN "
            f"UPDATE webhook_endpoint SET cursor = {_NEWEST} WHERE cursor > {_NEWEST}; END"
        )
