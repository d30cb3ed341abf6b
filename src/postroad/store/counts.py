"""Number of members, consents and suppressions, by what the console lists. Triggers maintain them, as `TouchCount`."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.bulk import any_of, id_rows
from postroad.store.types import StoredRow


class AudienceCount(StoredRow, table=True):
    """A part of the number of members who joined an audience by an import; 0: it is not recorded.

    The number is the sum of all slots, as in `TouchCount`.
    """

    __tablename__ = "audience_count"

    audience_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    import_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    members: int = Field(sa_type=sa.BigInteger)


class ConsentCount(StoredRow, table=True):
    """A part of the number of consents to an audience from one source: the number is the sum of all slots."""

    __tablename__ = "consent_count"

    audience_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    source: str = Field(primary_key=True, sa_type=sa.String(200))
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    consents: int = Field(sa_type=sa.BigInteger)


class SuppressionCount(StoredRow, table=True):
    """A part of the number of suppressions for one reason: the number is the sum of all slots, as in `TouchCount`."""

    __tablename__ = "suppression_count"

    reason: str = Field(primary_key=True, sa_type=sa.String(24))
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    suppressions: int = Field(sa_type=sa.BigInteger)


def members_by_audience(connection: sa.Connection, audience_ids: Sequence[int]) -> dict[int, int]:
    """Return the number of members of those of these audiences that have any."""
    item, parameters = id_rows(connection, audience_ids)
    statement = sa.text(
        "SELECT audience_id, sum(members) AS n FROM audience_count "
        f"WHERE audience_id {any_of(connection, f'SELECT batch.id FROM {item}')} "
        "GROUP BY audience_id HAVING sum(members) <> 0"
    )
    return {row.audience_id: int(row.n) for row in connection.execute(statement, parameters)}


def suppressions_by_reason(connection: sa.Connection) -> dict[str, int]:
    """Return the number of suppressions for each reason that has any."""
    statement = sa.text(
        "SELECT reason, sum(suppressions) AS n FROM suppression_count GROUP BY reason HAVING sum(suppressions) <> 0"
    )
    return {row.reason: int(row.n) for row in connection.execute(statement)}


def consents_by_source(connection: sa.Connection, audience_id: int, *, after: str, limit: int) -> dict[str, int]:
    """Return the number of consents to an audience from each source whose text comes after another, in that order."""
    statement = sa.text(
        "SELECT source, sum(consents) AS n FROM consent_count WHERE audience_id = :audience_id AND source > :after "
        "GROUP BY source HAVING sum(consents) <> 0 ORDER BY source LIMIT :limit"
    )
    values = {"audience_id": audience_id, "after": after, "limit": limit}
    return {row.source: int(row.n) for row in connection.execute(statement, values)}


_FOLDED = (
    ("audience_count", ("audience_id", "import_id"), "members"),
    ("consent_count", ("audience_id", "source"), "consents"),
    ("suppression_count", ("reason",), "suppressions"),
)


def fold_list_counts(connection: sa.Connection) -> int:
    """Add the slots of closed connections to slot 0. Returns the number of deleted rows, which is 0 on SQLite."""
    if connection.dialect.name == "sqlite":
        return 0
    folded = 0
    for table, names, number in _FOLDED:
        keys = ", ".join(names)
        gone = sa.text(
            f"DELETE FROM {table} WHERE slot <> 0 "
            f"AND NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pg_stat_activity.pid = {table}.slot) "
            f"RETURNING {keys}, {number}"
        )
        rows = connection.execute(gone).all()
        values = ", ".join(f":{name}" for name in names)
        add = sa.text(
            f"INSERT INTO {table} AS counted ({keys}, slot, {number}) VALUES ({values}, 0, :{number}) "
            f"ON CONFLICT ({keys}, slot) DO UPDATE SET {number} = counted.{number} + excluded.{number}"
        )
        for row in sorted(rows):  # In a fixed order, so that two transactions do not deadlock.
            connection.execute(add, row._asdict())
        folded += len(rows)
    return folded
