"""Many rows in one parameter: a JSON array that the database reads as a table.

One statement moves thousands of rows at the same price on both servers, with no limit on the number of parameters.
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
    """Return a FROM item named alias with these columns, and the parameter that it reads.

    Instants go in as text (store.types.sql_instant). Names are the caller's own words, never input.
    """
    parameter = f"{alias}_rows"
    if connection.dialect.name == "sqlite":
        # SQLite reads a row again for each of its columns, and what is short is read faster.
        picks = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(columns))
        item = f"(SELECT {picks} FROM json_each(:{parameter})) AS {alias}"
        return item, {parameter: msgspec.json.encode([[row[name] for name in columns] for row in rows]).decode()}
    typed = ", ".join(f"{name} {kind.compile(connection.dialect)}" for name, kind in columns.items())
    item = f"jsonb_to_recordset(CAST(:{parameter} AS jsonb)) AS {alias}({typed})"
    return item, {parameter: msgspec.json.encode(rows).decode()}


def any_of(connection: sa.Connection, select: str) -> str:
    """Return a condition in SQL: the column before it is one of what a SELECT returns, which are few.

    PostgreSQL joins a SELECT of unknown size to the whole table. An array is looked up in the column's index.
    """
    return f"IN ({select})" if connection.dialect.name == "sqlite" else f"= ANY(ARRAY({select}))"
