"""Messages that a program requests, and keys of the HTTP API. The request belongs to the key of a touch."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, JSON_OBJECT, UtcDateTime

revision = "0033"
down_revision = "0032"

_OLD = ("campaign_id", "step_id", "recipient_id")
_NEW = (*_OLD, "request_id")


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("prefix", sa.String(16), nullable=False, unique=True),
        sa.Column("hashed", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(24), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("revoked_at", UtcDateTime()),
        sa.Column("last_used_at", UtcDateTime()),
    )
    op.add_column("touch", sa.Column("request_id", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    if op.get_bind().dialect.name == "sqlite":
        _change_key_on_sqlite(op.get_bind())
    else:
        op.create_unique_constraint("touch_key", "touch", _NEW)
        op.drop_constraint("touch_campaign_id_step_id_recipient_id_key", "touch")
    op.create_table(
        "message_request",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("key", sa.String(200), nullable=False, unique=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("touch_id", BIG_ID, sa.ForeignKey("touch.id"), unique=True),
        sa.Column("state", sa.String(24), nullable=False),
        sa.Column("transactional", sa.Boolean(), nullable=False),
        sa.Column("fields", JSON_OBJECT, nullable=False),
        sa.Column("files", JSON_OBJECT, nullable=False),
        sa.Column("requested_by", sa.String(100), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.add_column("campaign", sa.Column("transactional", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("suppression", sa.Column("also", sa.String(24)))


def _change_key_on_sqlite(connection: sa.Connection) -> None:
    """Copy the table with another unique key: SQLite cannot change a constraint (https://sqlite.org/lang_altertable).

    Its indexes and triggers are made again afterwards, so that the copy counts no touch twice.

    Raises:
        RuntimeError: The table does not have the expected key.
    """
    table = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'touch'")
    made = connection.execute(table).scalar_one()
    others = sa.text("SELECT sql FROM sqlite_master WHERE tbl_name = 'touch' AND type <> 'table' AND sql IS NOT NULL")
    statements = list(connection.execute(others).scalars())
    changed, keys = re.subn(
        rf"UNIQUE\s*\({', '.join(_OLD)}\)", f"CONSTRAINT touch_key UNIQUE ({', '.join(_NEW)})", made
    )
    copied, names = re.subn(r"^CREATE TABLE \"?touch\"?", "CREATE TABLE touch_copy", changed)
    if (keys, names) != (1, 1):
        raise RuntimeError(f"the table touch has another definition than expected: {made}")
    connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")  # Triggers of other tables name touch meanwhile.
    connection.exec_driver_sql(copied)
    connection.exec_driver_sql("INSERT INTO touch_copy SELECT * FROM touch")
    connection.exec_driver_sql("DROP TABLE touch")
    connection.exec_driver_sql("ALTER TABLE touch_copy RENAME TO touch")
    for statement in statements:
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
