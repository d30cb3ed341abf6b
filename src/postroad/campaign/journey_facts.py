"""Evaluates the conditions and dates of a journey on recipients in the database, one statement for many of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from postroad.segment.sql import ConditionScope, SqlCondition, date_sql, where_sql
from postroad.segment.tree import RecipientCondition, RecipientDate
from postroad.store.bulk import any_of, id_rows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = (datetime(9000, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
"""A later date, such as 9999-12-31 for "never", counts as this one: what follows it must be a datetime, too."""


class DatabaseFacts:
    """What the database has on recipients at a time. It implements `postroad.campaign.journey.Facts`."""

    def __init__(self, connection: sa.Connection, scope: ConditionScope) -> None:
        """Set up the facts. ``scope``: the campaign that the functions of conditions refer to."""
        self._connection = connection
        self._scope = scope

    def matching(self, condition: RecipientCondition, recipient_ids: Collection[int]) -> set[int]:
        """Return those of these recipients who match a condition."""
        where = where_sql(condition, self._connection.dialect.name, self._scope)
        rows = self._rows("recipient.id", where, f"AND {where.sql}", recipient_ids)
        return {row[0] for row in rows}

    def matching_each(self, conditions: Sequence[RecipientCondition], recipient_ids: Collection[int]) -> list[set[int]]:
        """Return those of these recipients who match each condition, with one statement for all of them."""
        dialect, parameters, bits = self._connection.dialect.name, dict[str, Any](), list[str]()
        for n, condition in enumerate(conditions):
            where = where_sql(condition, dialect, self._scope, prefix=f"c{n}")
            parameters |= where.parameters
            bits.append(f"CASE WHEN {where.sql} THEN {1 << n} ELSE 0 END")
        met: list[set[int]] = [set() for _ in conditions]
        if not bits:
            return met
        columns = f"recipient.id, {' + '.join(bits)}"
        for id_, found in self._rows(columns, SqlCondition("", parameters), "", recipient_ids):
            if found:
                for n, ids in enumerate(met):
                    if found >> n & 1:
                        ids.add(id_)
        return met

    def dates(self, date: RecipientDate, recipient_ids: Collection[int]) -> dict[int, datetime]:
        """Return the dates of these recipients. Recipients without one are missing."""
        written = date_sql(date, self._connection.dialect.name, self._scope.now)
        found = {}
        for id_, at_ms in self._rows(f"recipient.id, {written.sql}", written, "", recipient_ids):
            if at_ms is not None:
                found[id_] = _EPOCH + timedelta(milliseconds=min(int(at_ms), _LATEST_MS))
        return found

    def _rows(
        self, columns: str, written: SqlCondition, where: str, recipient_ids: Collection[int]
    ) -> Sequence[sa.Row[Any]]:
        if not recipient_ids:
            return []
        item, parameters = id_rows(self._connection, list(recipient_ids))
        ids = any_of(self._connection, f"SELECT batch.id FROM {item}")
        statement = sa.text(f"SELECT {columns} FROM recipient WHERE recipient.id {ids} {where}")
        return self._connection.execute(statement, {**parameters, **written.parameters}).all()
