"""Stores a further reason of a suppression whose first one is an unsubscribe.

An unsubscribe alone does not hold for transactional messages. A complaint or a bounce of the same address does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa


def record_further_reasons(connection: sa.Connection, new: str, parameters: Mapping[str, Any]) -> None:
    """Record the reasons of new suppressions with those that are stored as unsubscribes. The first other one is kept.

    Args:
        connection: A connection in a transaction that writes.
        new: FROM item of the new suppressions, named ``new``.
        parameters: Its parameters.
    """
    # Locked in the order in which suppressions are inserted, so that two lists with the same addresses do not deadlock.
    order = "ORDER BY suppression.address, suppression.audience_id FOR UPDATE OF suppression"
    statement = sa.text(
        "WITH mine AS MATERIALIZED (SELECT suppression.address, suppression.audience_id, new.reason "
        f"FROM {new} CROSS JOIN suppression WHERE suppression.address = new.address "
        "AND suppression.audience_id = new.audience_id AND suppression.reason = 'unsubscribe' "
        "AND suppression.also IS NULL AND new.reason <> 'unsubscribe' "
        f"{'' if connection.dialect.name == 'sqlite' else order}) "
        "UPDATE suppression SET also = mine.reason FROM mine "
        "WHERE suppression.address = mine.address AND suppression.audience_id = mine.audience_id"
    )
    connection.execute(statement, parameters)
