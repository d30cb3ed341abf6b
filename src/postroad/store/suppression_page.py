"""Reads suppressions in pages, by their numbers."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.store.suppression import SuppressionReason
from postroad.store.types import UtcDateTime


class NumberedSuppression(NamedTuple):
    """One suppression. ``audience`` None: everywhere. ``also``: a further reason of an unsubscribe."""

    number: int
    address: str
    audience: str | None
    reason: SuppressionReason
    also: SuppressionReason | None
    source: str
    created_at: datetime


def suppression_page(
    connection: sa.Connection, *, before: int | None, address: str | None, limit: int
) -> list[NumberedSuppression]:
    """Return suppressions, the newest first.

    Args:
        connection: A connection in a transaction.
        before: Number of the last one of the page before. None: the first page.
        address: Only of this address, domain or hash. None: of all.
        limit: Maximum number of rows.

    Returns:
        The suppressions.
    """
    conditions = ["suppression.number < :before"] if before is not None else []
    conditions += ["suppression.address = :address"] if address is not None else []
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    statement = sa.text(
        "SELECT suppression.number, suppression.address, audience.name AS audience, suppression.reason, "
        "suppression.also, suppression.source, suppression.created_at FROM suppression "
        f"LEFT JOIN audience ON audience.id = suppression.audience_id {where} "
        "ORDER BY suppression.number DESC LIMIT :limit"
    ).columns(
        sa.column("number", sa.Integer()),
        sa.column("address", sa.Text()),
        sa.column("audience", sa.Text()),
        sa.column("reason", sa.Text()),
        sa.column("also", sa.Text()),
        sa.column("source", sa.Text()),
        sa.column("created_at", UtcDateTime()),
    )
    values: dict[str, object] = {"limit": limit}
    values |= {} if before is None else {"before": before}
    values |= {} if address is None else {"address": address}
    return [
        NumberedSuppression(
            number=row.number or 0,
            address=row.address,
            audience=row.audience,
            reason=SuppressionReason(row.reason),
            also=SuppressionReason(row.also) if row.also else None,
            source=row.source,
            created_at=row.created_at,
        )
        for row in connection.execute(statement, values)
    ]
