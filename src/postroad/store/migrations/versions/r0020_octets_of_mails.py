"""Octets of mails are dropped in steps: an index of those that are still there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_index(
        "ix_bounce_mail_raw",
        "bounce_mail",
        ["received_at"],
        sqlite_where=sa.text("raw IS NOT NULL"),
        postgresql_where=sa.text("raw IS NOT NULL"),
    )
