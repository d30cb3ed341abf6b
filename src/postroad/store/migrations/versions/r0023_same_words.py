"""Keys of a refusal's words, so that the same words to many recipients of one provider count against none of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.add_column("delivery_event", sa.Column("words", sa.String(32)))
    op.create_index(
        "ix_delivery_event_words",
        "delivery_event",
        ["words", "blame", "at"],
        sqlite_where=sa.text("words IS NOT NULL"),
        postgresql_where=sa.text("words IS NOT NULL"),
    )
