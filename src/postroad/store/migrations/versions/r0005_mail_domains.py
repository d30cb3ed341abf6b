"""Whose mail hosts take the mail of a domain, and what domains say about TLS there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import UtcDateTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "mail_domain",
        sa.Column("domain", sa.String(255), primary_key=True),
        sa.Column("provider", sa.String(100), nullable=False),
        sa.Column("site", sa.String(300), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "sts_policy",
        sa.Column("domain", sa.String(255), primary_key=True),
        sa.Column("policy_id", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("hosts", sa.Text(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
    )
