"""Inserts outcomes as events of the ledger, and counts the new ones in the same transaction.

Every writer of an outcome calls `insert_outcomes`, so no outcome is in the events and not in the counts. A batch is
counted with one statement: a trigger runs for each row on SQLite.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from postroad.store.outcome import OUTCOME_COLUMNS, OUTCOME_TABLES, OUTCOME_VALUES
from postroad.store.traffic import MERGE_TRAFFIC, TRAFFIC_KEY, Grain
from postroad.store.types import UtcDateTime

_COUNTED: Final = f"state, {OUTCOME_COLUMNS}"
_COUNT: Final = (
    f"INSERT INTO traffic AS counted ({TRAFFIC_KEY}, events) SELECT * FROM ("
    f"SELECT '{Grain.MINUTE}' AS grain, minute, state, sender_id, provider, campaign_id, {{slot}}, n FROM counts "
    f"UNION ALL SELECT '{Grain.TOTAL}', minute, state, 0, '', 0, {{slot}}, sum(n) FROM counts GROUP BY minute, state"
    # In a fixed order, so that two transactions do not deadlock.
    f") AS of_minute WHERE true ORDER BY 1, 2, 3, 4, 5, 6 {MERGE_TRAFFIC}"
)


def insert_outcomes(
    connection: sa.Connection,
    columns: Mapping[str, str],
    parameters: Mapping[str, object],
    *,
    touch: str,
    rows: str = "",
) -> None:
    """Insert events that are outcomes of touches, and count them as traffic. Idempotent by the ``uid``.

    An outcome of a touch that the ledger does not have is skipped.

    Args:
        connection: A connection in a transaction that writes.
        columns: Columns of ``delivery_event``, each with its SQL expression. They are constants, never input.
        parameters: Parameters of the expressions.
        touch: SQL expression of the id of the touch.
        rows: The FROM item of the expressions. Empty: there is one row.
    """
    first = f"{rows} CROSS JOIN " if rows else ""
    order = ""
    if rows and connection.dialect.name == "postgresql":
        # In a fixed order, so that two recorders with the same events do not deadlock.
        places = [str(list(columns).index(name) + 1) for name in ("touch_id", "at", "uid")]
        order = f"ORDER BY {', '.join(places)} "
    insert = (
        f"INSERT INTO delivery_event ({', '.join(columns)}, {OUTCOME_COLUMNS}) "
        f"SELECT {', '.join(columns.values())}, {OUTCOME_VALUES} FROM {first}{OUTCOME_TABLES} AND touch.id = {touch} "
        f"{order}ON CONFLICT (uid) DO NOTHING"
    )
    if connection.dialect.name == "sqlite":
        # It has one writer: the rows after the last one are those of this statement.
        last = connection.execute(_LAST_ID).scalar_one()
        connection.execute(_typed(insert, parameters), parameters)
        connection.execute(_COUNT_SQLITE, {"last": last})
        return
    statement = (
        f"WITH added AS ({insert} RETURNING at, {_COUNTED}), "
        f"counts AS (SELECT date_trunc('minute', at) AS minute, {_COUNTED}, count(*) AS n FROM added "
        f"GROUP BY 1, {_COUNTED}) {_COUNT.format(slot='pg_backend_pid()')}"
    )
    connection.execute(_typed(statement, parameters), parameters)


_LAST_ID = sa.text("SELECT COALESCE(max(id), 0) FROM delivery_event")
_COUNT_SQLITE = sa.text(
    rf"WITH counts AS MATERIALIZED (SELECT substr(at, 1, 16) || '\:00.000000' AS minute, {_COUNTED}, count(*) AS n "
    f"FROM delivery_event WHERE id > :last GROUP BY 1, {_COUNTED}) {_COUNT.format(slot='0')}"
)


def _typed(statement: str, parameters: Mapping[str, object]) -> sa.TextClause:
    times: list[sa.BindParameter[Any]] = [
        sa.bindparam(name, type_=UtcDateTime()) for name, value in parameters.items() if isinstance(value, datetime)
    ]
    return sa.text(statement).bindparams(*times)
