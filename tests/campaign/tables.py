"""Content of the tables, for comparisons before and after."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel

from postroad.store import campaign, ledger, recipient, suppression
from postroad.store.engine import read, write

MODULES = (campaign, ledger, recipient, suppression)  # They declare the tables.


def row_counts(engine: sa.Engine) -> dict[str, int]:
    with read(engine) as connection:
        return {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in SQLModel.metadata.sorted_tables
        }


def empty_tables(engine: sa.Engine) -> None:
    with write(engine) as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(sa.delete(table))


Recipients = dict[str, tuple[str | None, dict[str, Any]]]


def recipients(engine: sa.Engine) -> Recipients:
    """Every recipient by address: time zone and merge fields."""
    columns = (recipient.Recipient.address, recipient.Recipient.time_zone, recipient.Recipient.attributes)
    with read(engine) as connection:
        return {row.address: (row.time_zone, row.attributes) for row in connection.execute(sa.select(*columns))}  # type: ignore[call-overload]


def members(engine: sa.Engine, audience: str) -> set[str]:
    with read(engine) as connection:
        statement = sa.text(
            "SELECT recipient.address FROM recipient JOIN audience_member ON recipient_id = recipient.id "
            "JOIN audience ON audience.id = audience_id WHERE audience.name = :name"
        )
        return set(connection.execute(statement, {"name": audience}).scalars())
