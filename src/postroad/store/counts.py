"""Number of members of each audience, and of suppressions for each reason. Triggers maintain them, as `TouchCount`."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.types import StoredRow


class AudienceCount(StoredRow, table=True):
    """A part of the number of members of an audience: the number is the sum of all slots, as in `TouchCount`."""

    __tablename__ = "audience_count"

    audience_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    members: int = Field(sa_type=sa.BigInteger)


class SuppressionCount(StoredRow, table=True):
    """A part of the number of suppressions for one reason: the number is the sum of all slots, as in `TouchCount`."""

    __tablename__ = "suppression_count"

    reason: str = Field(primary_key=True, sa_type=sa.String(24))
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    suppressions: int = Field(sa_type=sa.BigInteger)


def members_by_audience(connection: sa.Connection) -> dict[int, int]:
    """Return the number of members of each audience that has any."""
    statement = sa.text(
        "SELECT audience_id, sum(members) AS n FROM audience_count GROUP BY audience_id HAVING sum(members) <> 0"
    )
    return {row.audience_id: int(row.n) for row in connection.execute(statement)}


def suppressions_by_reason(connection: sa.Connection) -> dict[str, int]:
    """Return the number of suppressions for each reason that has any."""
    statement = sa.text(
        "SELECT reason, sum(suppressions) AS n FROM suppression_count GROUP BY reason HAVING sum(suppressions) <> 0"
    )
    return {row.reason: int(row.n) for row in connection.execute(statement)}


_FOLDED = (
    ("audience_count", "audience_id", "members"),
    ("suppression_count", "reason", "suppressions"),
)


def fold_list_counts(connection: sa.Connection) -> int:
    """Add the slots of closed connections to slot 0. Returns the number of deleted rows, which is 0 on SQLite."""
    if connection.dialect.name == "sqlite":
        return 0
    folded = 0
    for table, key, number in _FOLDED:
        gone = sa.text(
            f"DELETE FROM {table} WHERE slot <> 0 "
            f"AND NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pg_stat_activity.pid = {table}.slot) "
            f"RETURNING {key} AS key, {number} AS n"
        )
        rows = connection.execute(gone).all()
        add = sa.text(
            f"INSERT INTO {table} AS counted ({key}, slot, {number}) VALUES (:key, 0, :n) "
            f"ON CONFLICT ({key}, slot) DO UPDATE SET {number} = counted.{number} + excluded.{number}"
        )
        for row in sorted(rows):  # In a fixed order, so that two transactions do not deadlock.
            connection.execute(add, row._asdict())
        folded += len(rows)
    return folded
