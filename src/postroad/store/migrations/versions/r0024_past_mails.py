"""Rows of returned mails may be deleted: the digest is kept, so that no mail is processed a second time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.create_table("past_bounce_mail", sa.Column("digest", sa.String(64), primary_key=True))
    op.create_index("ix_bounce_mail_received", "bounce_mail", ["received_at"])
