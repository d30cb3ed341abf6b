"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic import ConfigDict
from sqlmodel import SQLModel

# 64 bits; SQLite numbers rows by itself only for a column declared INTEGER.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class StoredRow(SQLModel):
    """A row of a table. It is written as it is, so pydantic's validator is not built unless it is used."""

    model_config = ConfigDict(defer_build=True)  # type: ignore[assignment]  # SQLModel has a type of its own for it


class PartialIndex(sa.Index):
    """An index of the rows that meet a condition.

    SQLAlchemy imports the dialect of each database for which an index has a condition. No command needs more than one,
    so `declare_tables` sets the conditions, for migrations.
    """

    def __init__(self, name: str, *columns: str, where: str, unique: bool = False) -> None:
        """Make an index.

        Args:
            name: Name of the index.
            columns: Names of its columns.
            where: The condition, in SQL of both databases.
            unique: Whether rows must differ.
        """
        super().__init__(name, *columns, unique=unique)
        self._where = where

    def set_condition(self) -> None:
        """Set the condition for both databases."""
        for dialect in ("sqlite", "postgresql"):
            self.dialect_kwargs[f"{dialect}_where"] = sa.text(self._where)


class JsonObject(sa.TypeDecorator[Any]):
    """An object of merge fields or settings. JSONB on PostgreSQL, so that fields merge and compare in the database.

    ``none_as_null``: None is stored as NULL, which SQL finds, and not as the JSON value ``null``.
    """

    impl = sa.JSON
    cache_ok = True

    def __init__(self, *, none_as_null: bool = False) -> None:
        super().__init__(none_as_null=none_as_null)
        self.none_as_null = none_as_null

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        kind = jsonb if dialect.name == "postgresql" else sa.JSON
        return dialect.type_descriptor(kind(none_as_null=self.none_as_null))


JSON_OBJECT = JsonObject()
JSON_OR_NULL = JsonObject(none_as_null=True)


def jsonb(*, none_as_null: bool = False) -> sa.types.TypeEngine[Any]:
    """Return PostgreSQL's type of JSON objects. A command on SQLite does not import the dialect."""
    from sqlalchemy.dialects.postgresql import JSONB

    return JSONB(none_as_null=none_as_null)


def upsert_into(connection: sa.Connection, table: Any) -> Any:
    """Return an INSERT that supports ``on_conflict_do_update``, of the connection's database."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]

    return insert(table)


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A time. It takes aware datetimes and returns UTC. SQLite stores it as text that sorts by time."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} is a time without a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class StrEnumType(sa.TypeDecorator[StrEnum]):
    """A StrEnum, stored as its value: readable in any SQL client, and a new value needs no migration."""

    impl = sa.String(24)
    cache_ok = True

    def __init__(self, enum: type[StrEnum]) -> None:
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: StrEnum | str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(self.enum(value).value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> StrEnum | None:
        return None if value is None else self.enum(value)


def sql_time(value: datetime, dialect_name: str) -> str:
    """Return a time as text that compares with a UtcDateTime column, for rows that are passed as JSON."""
    value = value.astimezone(UTC)
    if dialect_name == "sqlite":
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")  # strftime takes eight times as long
    return value.isoformat()


@lru_cache(maxsize=1_000)
def epoch_ms(raw: datetime | str) -> int:
    """Return the milliseconds since the epoch of a time that was read from a UtcDateTime column without its type.

    The touches of a batch share few times, and parsing one takes longer than reading the rest of the row.
    """
    value = datetime.fromisoformat(raw) if isinstance(raw, str) else raw
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    return int(value.timestamp() * 1000)
