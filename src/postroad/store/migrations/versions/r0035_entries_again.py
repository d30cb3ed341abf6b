"""A recipient may enter a journey again: an enrolment has the number of the entry in its key.

The touches of a later entry have a key of their own by their ``request_id``.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"

_OLD, _NEW = "campaign_id, recipient_id", "campaign_id, recipient_id, entry"


def upgrade() -> None:
    op.add_column("enrolment", sa.Column("entry", sa.Integer(), nullable=False, server_default=sa.text("1")))
    if op.get_bind().dialect.name == "sqlite":
        _change_key_on_sqlite(op.get_bind())
    else:
        op.execute(f"ALTER TABLE enrolment ADD UNIQUE ({_NEW})")
        op.drop_constraint("enrolment_campaign_id_recipient_id_key", "enrolment")


def _change_key_on_sqlite(connection: sa.Connection) -> None:
    """Copy the table with another unique key: SQLite cannot change a constraint.

    Raises:
        RuntimeError: The table does not have the expected key.
    """
    known = sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = 'enrolment' AND sql IS NOT NULL")
    rows = connection.execute(known).all()
    [made] = [row.sql for row in rows if row.type == "table"]
    changed, keys = re.subn(rf"UNIQUE\s*\({_OLD}\)", f"UNIQUE ({_NEW})", made)
    copied, names = re.subn(r"^CREATE TABLE \"?enrolment\"?", "CREATE TABLE enrolment_copy", changed)
    if (keys, names) != (1, 1):
        raise RuntimeError(f"the table enrolment has another definition than expected: {made}")
    connection.exec_driver_sql(copied)
    connection.exec_driver_sql("INSERT INTO enrolment_copy SELECT * FROM enrolment")
    connection.exec_driver_sql("DROP TABLE enrolment")
    connection.exec_driver_sql("ALTER TABLE enrolment_copy RENAME TO enrolment")
    for row in rows:
        if row.type != "table":
            connection.exec_driver_sql(row.sql)
