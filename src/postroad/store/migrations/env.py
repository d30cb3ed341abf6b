"""Runs migrations on the connection that postroad.store.migrate passes."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from postroad.store import declare_tables

declare_tables()
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
