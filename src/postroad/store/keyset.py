"""SQL of one page of a list that continues after a key, in the order of one index.

PostgreSQL treats a column that equals a constant as no part of an order. For the order that remains it may choose
another index, such as the primary key, and skip half a table for a page. So the last such column is compared as a part
of the key, which leaves only the index that has them all. SQLite chooses the index with most columns that are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

LAST_ID = 2**63 - 1
"""Larger than any id: a list whose newest row comes first begins before it."""


class KeysetSql(NamedTuple):
    """A condition for WHERE, and the columns for ORDER BY."""

    where: str
    order_by: str


def keyset_sql(
    connection: sa.Connection,
    *,
    equal: Sequence[str],
    key: Sequence[str],
    descending: bool = False,
    bound: str | None = None,
) -> KeysetSql:
    """Return the SQL of the page after a key.

    Args:
        connection: The connection that executes the statement.
        equal: Columns that equal the parameters of their names. The index begins with them.
        key: Columns of the order, which follow in the index. The row before is in the parameters ``after_NAME``.
        descending: The order is descending.
        bound: Name of a parameter up to which the first column of the key is listed. None: the list has no such end.

    Returns:
        The SQL. Names of columns are constants of the caller, never input.
    """
    beyond, back = ("<", ">=") if descending else (">", "<=")
    direction = " DESC" if descending else ""
    after = [f":after_{name}" for name in key]
    if connection.dialect.name == "sqlite":
        clauses = [f"{name} = :{name}" for name in equal]
        clauses.append(f"({', '.join(key)}) {beyond} ({', '.join(after)})")
        clauses += [f"{key[0]} {back} :{bound}"] if bound else []
        return KeysetSql(" AND ".join(clauses), ", ".join(f"{name}{direction}" for name in key))
    *constant, last = equal
    clauses = [f"{name} = :{name}" for name in constant]
    clauses.append(f"({', '.join([last, *key])}) {beyond} ({', '.join([f':{last}', *after])})")
    clauses.append(f"({last}, {key[0]}) {back} (:{last}, :{bound})" if bound else f"{last} {back} :{last}")
    return KeysetSql(" AND ".join(clauses), ", ".join(f"{name}{direction}" for name in (last, *key)))
