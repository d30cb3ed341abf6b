"""The log of an endpoint that gets events, and its dead events."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, to_page
from postroad.store.webhook_log import LogRow, last_attempts, log_page
from postroad.store.webhook_out import OpenDelivery, WebhookDeliveryState, open_deliveries


def webhook_attempts(
    connection: sa.Connection,
    endpoint: str,
    *,
    event: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[LogRow]:
    """Return the requests to an endpoint, the newest first.

    Args:
        connection: A connection in a transaction.
        endpoint: Name of the endpoint.
        event: Only requests with this event. None: with any.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    before = decode_cursor(after, int, 0) or None
    rows = log_page(connection, endpoint=endpoint, message_id=event, before=before, limit=limit + 1)
    return to_page(rows, limit, lambda row: row.id)


class DeadEvent(NamedTuple):
    """An event of which every attempt failed. ``last``: its last attempt; None: its log was deleted."""

    delivery: OpenDelivery
    last: LogRow | None


def dead_events(
    connection: sa.Connection, endpoint: str, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[DeadEvent]:
    """Return the events of which every attempt failed, the oldest first.

    Args:
        connection: A connection in a transaction.
        endpoint: Name of the endpoint.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    last = decode_cursor(after, int, 0)
    dead = open_deliveries(connection, endpoint, WebhookDeliveryState.DEAD, after=last, limit=limit + 1)
    attempts = last_attempts(connection, endpoint, [delivery.message_id for delivery in dead])
    rows = [DeadEvent(delivery, attempts.get(delivery.message_id)) for delivery in dead]
    return to_page(rows, limit, lambda row: row.delivery.id)
