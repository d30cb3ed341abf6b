"""What was found of senders' DNS, whom it holds back, and what receivers report."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "dns_report",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("sender", sa.String(320), nullable=False),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("findings", JSON_OBJECT, nullable=False),
        sa.Column("checked_at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_dns_report_sender", "dns_report", ["sender", "id"])
    op.create_table(
        "sender_hold",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("sender", sa.String(320), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("failing_since", UtcDateTime(), nullable=False),
        sa.Column("held_at", UtcDateTime()),
        sa.Column("ended_at", UtcDateTime()),
        sa.Column("ended_why", sa.Text()),
    )
    is_open = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_sender_hold_open", "sender_hold", ["sender"], unique=True, sqlite_where=is_open, postgresql_where=is_open
    )
    op.create_table(
        "mail_report",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("organisation", sa.String(255), nullable=False),
        sa.Column("report_id", sa.String(255), nullable=False),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("begins_at", UtcDateTime(), nullable=False),
        sa.Column("ends_at", UtcDateTime(), nullable=False),
        sa.UniqueConstraint("kind", "organisation", "report_id", "domain"),
    )
    op.create_index("ix_mail_report_ends_at", "mail_report", ["ends_at"])
    op.create_table(
        "dmarc_report_row",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("mail_report_id", BIG_ID, sa.ForeignKey("mail_report.id"), nullable=False),
        sa.Column("source_ip", sa.String(45), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("dkim", sa.Boolean(), nullable=False),
        sa.Column("spf", sa.Boolean(), nullable=False),
        sa.Column("header_from", sa.String(255), nullable=False),
        sa.Column("envelope_from", sa.String(255), nullable=False),
    )
    op.create_index("ix_dmarc_report_row_mail_report_id", "dmarc_report_row", ["mail_report_id"])
    op.create_table(
        "tls_report_row",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("mail_report_id", BIG_ID, sa.ForeignKey("mail_report.id"), nullable=False),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("policy", sa.String(255), nullable=False),
        sa.Column("result", sa.String(255), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("mail_host", sa.String(255), nullable=False),
    )
    op.create_index("ix_tls_report_row_mail_report_id", "tls_report_row", ["mail_report_id"])
