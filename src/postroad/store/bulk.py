"""Passes many rows in one parameter: a JSON array that the database reads as a table.

One statement handles thousands of rows at the same cost on both databases, without a limit on the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine


def json_rows(
    connection: sa.Connection,
    alias: str,
    columns: Mapping[str, TypeEngine[Any]],
    rows: Sequence[Mapping[str, Any]],
) -> tuple[str, dict[str, str]]:
    """Return a FROM item with these rows, and its parameter.

    Args:
        connection: The connection that executes the statement.
        alias: Name of the FROM item. A constant of the caller, never input.
        columns: Name and type of each column. The names are constants of the caller, never input.
        rows: The rows. A time is text, as `postroad.store.types.sql_time` returns it.
    """
    parameter = f"{alias}_rows"
    if connection.dialect.name == "sqlite":
        # SQLite parses a row again for each of its columns, and parses a short row faster.
        picks = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns))
        item = f"(SELECT {picks} FROM json_each(:{parameter})) AS {alias}"
        return item, {parameter: msgspec.json.encode([[row[name] for name in columns] for row in rows]).decode()}
    typed = ", ".join(f"{name} {kind.compile(connection.dialect)}" for name, kind in columns.items())
    item = f"jsonb_to_recordset(CAST(:{parameter} AS jsonb)) AS {alias}({typed})"
    return item, {parameter: msgspec.json.encode(rows).decode()}


def grouped_rows(
    connection: sa.Connection,
    alias: str,
    columns: Mapping[str, TypeEngine[Any]],
    groups: Sequence[tuple[Mapping[str, Any], Sequence[int]]],
) -> tuple[str, dict[str, str]]:
    """Return a WITH clause of ids in groups, and its parameter. The columns of a group are passed and read once.

    Args:
        connection: The connection that executes the statement.
        alias: Name of the rows: one for each id, with the column ``id`` and those of its group. A constant of the
            caller, never input.
        columns: Name and type of each column of a group, as in `json_rows`.
        groups: The values of the columns of each group, and its ids.
    """
    rows = [{**values, "ids": list(ids)} for values, ids in groups]
    item, parameters = json_rows(connection, "listed", {**columns, "ids": sa.ARRAY(sa.BigInteger())}, rows)
    one_each = "unnest(grouped.ids) AS one(value)"
    if connection.dialect.name == "sqlite":
        one_each = "json_each(grouped.ids) AS one"
    picks = ", ".join(f"grouped.{name}" for name in columns)
    # Both are materialized: otherwise SQLite parses a group again for each id, and joins the ids last.
    fence = f"WITH grouped AS MATERIALIZED (SELECT * FROM {item}), {alias} AS MATERIALIZED"
    return f"{fence} (SELECT one.value AS id, {picks} FROM grouped CROSS JOIN {one_each})", parameters


def id_rows(connection: sa.Connection, ids: Sequence[int], alias: str = "batch") -> tuple[str, dict[str, str]]:
    """Return a FROM item with the one column ``id``, and its parameter."""
    if connection.dialect.name == "sqlite":  # A list of numbers is parsed faster than one of rows.
        parameter = f"{alias}_rows"
        item = f"(SELECT value AS id FROM json_each(:{parameter})) AS {alias}"
        return item, {parameter: msgspec.json.encode(list(ids)).decode()}
    return json_rows(connection, alias, {"id": sa.BigInteger()}, [{"id": id_} for id_ in ids])


def locked_touches(connection: sa.Connection, touch_ids: Sequence[int], columns: str) -> tuple[str, dict[str, str]]:
    """Return a WITH clause `mine` of these touches, locked, with their ids and these columns; and its parameter.

    A condition on a column of `mine` is not one on the table ``touch``. With a condition on the table, PostgreSQL reads
    the whole partial index that has the same condition, until the first ANALYZE.
    """
    item, parameters = id_rows(connection, touch_ids)
    picks = ", ".join(f"touch.{column}" for column in ("id", *columns.split(", ")))
    lock = "" if connection.dialect.name == "sqlite" else "ORDER BY touch.id FOR UPDATE OF touch"
    return (
        f"WITH mine AS MATERIALIZED (SELECT {picks} FROM {item} JOIN touch ON touch.id = batch.id {lock})",
        parameters,
    )


def any_of(connection: sa.Connection, select: str) -> str:
    """Return the right side of an SQL comparison of a column with the few values that a SELECT returns.

    PostgreSQL joins a SELECT of unknown size to the whole table. It looks up an array in the column's index.
    """
    return f"IN ({select})" if connection.dialect.name == "sqlite" else f"= ANY(ARRAY({select}))"


def found_sql(rows: str) -> str:
    """Return the SQL condition that at least one row is found, by an index, for each row of the query around it.

    PostgreSQL may evaluate an EXISTS for all rows at once, which reads whole tables. It never does so with a LIMIT.

    Args:
        rows: ``TABLE WHERE CONDITION``. A constant of the caller, never input.
    """
    return f"COALESCE((SELECT true FROM {rows} LIMIT 1), false)"


def lookup_join(connection: sa.Connection, table: str, condition: str, *, outer: bool = False) -> str:
    """Return a JOIN that looks up the rows of a table for each row before it.

    PostgreSQL joins a page to the whole table where the table is only some times larger than the page.

    Args:
        connection: The connection that executes the statement.
        table: The table. A constant of the caller, never input.
        condition: SQL that finds the rows by an index. A constant of the caller, never input.
        outer: Also rows for which nothing is found.
    """
    if connection.dialect.name == "sqlite":
        return f"{'LEFT' if outer else 'CROSS'} JOIN {table} ON {condition}"
    kind = "LEFT JOIN" if outer else "JOIN"
    return f"{kind} LATERAL (SELECT * FROM {table} WHERE {condition} OFFSET 0) AS {table} ON true"
