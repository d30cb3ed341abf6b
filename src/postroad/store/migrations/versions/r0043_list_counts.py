"""Numbers of members of audiences and of suppressions by reason, and indexes of their lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"

# One statement for each row on SQLite, one for each statement on PostgreSQL.
_SQLITE = """
CREATE TRIGGER {name} AFTER {event} ON {table} {when} BEGIN
INSERT INTO {counts} ({key}, slot, {number}) VALUES ({row}.{key}, 0, {change})
ON CONFLICT ({key}, slot) DO UPDATE SET {number} = {number} + excluded.{number}; END
"""
_FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {counts} AS counted ({key}, slot, {number})
  SELECT {key}, pg_backend_pid(), sum(n) FROM ({moved}) AS moved GROUP BY {key} HAVING sum(n) <> 0 ORDER BY {key}
  ON CONFLICT ({key}, slot) DO UPDATE SET {number} = counted.{number} + excluded.{number};
  RETURN NULL;
END $$
"""
_MOVED = "SELECT {key}, {sign}count(*) AS n FROM {rows} GROUP BY {key}"
_TRIGGER = (
    "CREATE TRIGGER {name} AFTER {event} ON {table} REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
)
_NEW, _OLD = "NEW TABLE AS new_rows", "OLD TABLE AS old_rows"


def upgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "audience_count",
        sa.Column("audience_id", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("members", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("audience_id", "slot"),
    )
    op.create_table(
        "suppression_count",
        sa.Column("reason", sa.String(24), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("suppressions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("reason", "slot"),
    )
    for table, counts, key, number in (
        ("audience_member", "audience_count", "audience_id", "members"),
        ("suppression", "suppression_count", "reason", "suppressions"),
    ):
        op.execute(
            f"INSERT INTO {counts} ({key}, slot, {number}) SELECT {key}, 0, count(*) FROM {table} GROUP BY {key}"
        )
        _count(on_sqlite, {"table": table, "counts": counts, "key": key, "number": number})
    op.create_index("ix_suppression_reason", "suppression", ["reason", "number"])
    op.create_index("ix_refusal_import", "refusal", ["import_id", "id"])
    op.create_index("ix_audience_import_audience", "audience_import", ["audience_id", "id"])


def _count(on_sqlite: bool, names: dict[str, str]) -> None:
    table, key = names["table"], names["key"]
    if on_sqlite:
        changed = f"WHEN OLD.{key} <> NEW.{key}"
        for name, event, when, row, change in (
            (f"count_new_{table}", "INSERT", "", "NEW", "1"),
            (f"count_gone_{table}", "DELETE", "", "OLD", "-1"),
            (f"count_left_{table}", f"UPDATE OF {key}", changed, "OLD", "-1"),
            (f"count_moved_{table}", f"UPDATE OF {key}", changed, "NEW", "1"),
        ):
            op.execute(_SQLITE.format(**names, name=name, event=event, when=when, row=row, change=change))
        return
    arrived = _MOVED.format(key=key, sign="", rows="new_rows")
    left = _MOVED.format(key=key, sign="-", rows="old_rows")
    for name, event, moved, rows in (
        (f"count_new_{table}", "INSERT", arrived, _NEW),
        (f"count_gone_{table}", "DELETE", left, _OLD),
        (f"count_moved_{table}", "UPDATE", f"{arrived} UNION ALL {left}", f"{_OLD} {_NEW}"),
    ):
        op.execute(_FUNCTION.format(**names, name=name, moved=moved))
        op.execute(_TRIGGER.format(table=table, name=name, event=event, rows=rows))
