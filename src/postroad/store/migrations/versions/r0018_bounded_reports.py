"""Reports of receivers are bounded by day and forgotten: when each came, and how many rows it has.

Older ones count as come when their time ended.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import UtcDateTime

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    with op.batch_alter_table("mail_report") as table:
        table.add_column(sa.Column("received_at", UtcDateTime(), nullable=True))
        table.add_column(sa.Column("row_count", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("left_out", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE mail_report SET received_at = ends_at")
    with op.batch_alter_table("mail_report") as table:
        table.alter_column("received_at", existing_type=UtcDateTime(), nullable=False)
    op.create_index("ix_mail_report_received_at", "mail_report", ["received_at"])
