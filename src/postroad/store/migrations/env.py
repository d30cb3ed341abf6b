"""Runs migrations on the connection that postroad.store.migrate hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from postroad.store import (  # noqa: F401  (they declare the tables)
    bounce,
    campaign,
    dns_report,
    ledger,
    mail_domain,
    mail_report,
    recipient,
    reputation,
    shaping,
    sts_policy,
    suppression,
    warmup,
)

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run `postroad db upgrade`: it knows which database is meant.")

context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
