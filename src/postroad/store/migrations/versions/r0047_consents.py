"""Evidence that recipients asked for mail: consents, and the import and line by which a member joined an audience."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from postroad.store.types import BIG_ID, UtcDateTime

revision = "0047"
down_revision = "0046"

# One statement for each row on SQLite, one for each statement on PostgreSQL.
_SQLITE = """
CREATE TRIGGER {name} AFTER {event} ON {table} {when} BEGIN
INSERT INTO {counts} ({keys}, slot, {number}) VALUES ({values}, 0, {change})
ON CONFLICT ({keys}, slot) DO UPDATE SET {number} = {number} + excluded.{number}; END
"""
_FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {counts} AS counted ({keys}, slot, {number})
  SELECT {keys}, pg_backend_pid(), sum(n) FROM ({moved}) AS moved GROUP BY {keys} HAVING sum(n) <> 0 ORDER BY {keys}
  ON CONFLICT ({keys}, slot) DO UPDATE SET {number} = counted.{number} + excluded.{number};
  RETURN NULL;
END $$
"""
_TRIGGER = (
    "CREATE TRIGGER {name} AFTER {event} ON {table} REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
)
_NEW, _OLD = "NEW TABLE AS new_rows", "OLD TABLE AS old_rows"


def upgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "consent",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("recipient_id", BIG_ID, sa.ForeignKey("recipient.id"), nullable=False),
        sa.Column("audience_id", BIG_ID, sa.ForeignKey("audience.id"), nullable=False),
        sa.Column("given_at", UtcDateTime(), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("ip", sa.String(45)),
        sa.Column("wording", sa.Text()),
        sa.Column("confirmation", sa.String(200)),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.Column("recorded_by", sa.String(200), nullable=False),
    )
    op.create_index("ux_consent", "consent", ["recipient_id", "audience_id", "given_at", "source"], unique=True)
    op.create_index("ix_consent_audience", "consent", ["audience_id", "id"])
    op.create_index("ix_consent_source", "consent", ["audience_id", "source", "id"])
    _create_counts("consent_count", sa.Column("source", sa.String(200), nullable=False), "consents")
    keys = {"audience_id": "audience_id", "source": "source"}
    _count(on_sqlite, {"table": "consent", "counts": "consent_count", "number": "consents"}, keys)
    _replace_audience_count(on_sqlite)


def _replace_audience_count(on_sqlite: bool) -> None:
    """Count the members of an audience by the import by which they joined."""
    op.add_column("audience_member", sa.Column("joined_import_id", BIG_ID))
    op.add_column("audience_member", sa.Column("joined_line", sa.Integer()))
    known = sa.text("joined_import_id IS NOT NULL")
    op.create_index(
        "ix_audience_member_joined_import",
        "audience_member",
        ["joined_import_id", "recipient_id"],
        sqlite_where=known,
        postgresql_where=known,
    )
    for name in ("count_new", "count_gone", "count_moved", *(["count_left"] if on_sqlite else [])):
        op.execute(f"DROP TRIGGER {name}_audience_member{'' if on_sqlite else ' ON audience_member'}")
        if not on_sqlite:
            op.execute(f"DROP FUNCTION {name}_audience_member()")
    op.rename_table("audience_count", "audience_count_before")
    _create_counts("audience_count", sa.Column("import_id", sa.BigInteger(), nullable=False), "members")
    op.execute(
        "INSERT INTO audience_count (audience_id, import_id, slot, members) "
        "SELECT audience_id, 0, 0, sum(members) FROM audience_count_before GROUP BY audience_id"
    )
    op.drop_table("audience_count_before")
    keys = {"audience_id": "audience_id", "import_id": "joined_import_id"}
    _count(on_sqlite, {"table": "audience_member", "counts": "audience_count", "number": "members"}, keys)


def _create_counts(name: str, second_key: sa.Column[Any], number: str) -> None:
    op.create_table(
        name,
        sa.Column("audience_id", sa.BigInteger(), nullable=False),
        second_key,
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column(number, sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("audience_id", second_key.name, "slot", name=f"pk_{name}"),
    )


def _count(on_sqlite: bool, given: dict[str, str], keys: dict[str, str]) -> None:
    """Make triggers that count the rows of a table. ``keys``: column of the table of each key of a count."""
    table, names = given["table"], {**given, "keys": ", ".join(keys)}

    def value(row: str, column: str) -> str:
        return f"COALESCE({row}.{column}, 0)" if column == "joined_import_id" else f"{row}.{column}"

    if on_sqlite:
        values = {row: ", ".join(value(row, column) for column in keys.values()) for row in ("OLD", "NEW")}
        update, changed = f"UPDATE OF {', '.join(keys.values())}", f"WHEN ({values['OLD']}) <> ({values['NEW']})"
        for name, event, when, row, change in (
            ("count_new", "INSERT", "", "NEW", "1"),
            ("count_gone", "DELETE", "", "OLD", "-1"),
            ("count_left", update, changed, "OLD", "-1"),
            ("count_moved", update, changed, "NEW", "1"),
        ):
            trigger = {"name": f"{name}_{table}", "event": event, "when": when, "values": values[row], "change": change}
            op.execute(_SQLITE.format(**names, **trigger))
        return
    picks = ", ".join(f"{value('its', column)} AS {key}" for key, column in keys.items())
    arrived, left = (
        f"SELECT {names['keys']}, {sign}count(*) AS n FROM (SELECT {picks} FROM {rows} AS its) AS keyed "
        f"GROUP BY {names['keys']}"
        for rows, sign in (("new_rows", ""), ("old_rows", "-"))
    )
    for name, event, moved, rows in (
        ("count_new", "INSERT", arrived, _NEW),
        ("count_gone", "DELETE", left, _OLD),
        ("count_moved", "UPDATE", f"{arrived} UNION ALL {left}", f"{_OLD} {_NEW}"),
    ):
        op.execute(_FUNCTION.format(**names, name=f"{name}_{table}", moved=moved))
        op.execute(_TRIGGER.format(table=table, name=f"{name}_{table}", event=event, rows=rows))
