"""Rows of endpoints that get events: deliveries, dead ones, and the log of requests."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from postroad.event_types import EventType
from postroad.store.webhook_log import LoggedAttempt, log_attempts
from postroad.store.webhook_out import (
    NewDelivery,
    WebhookDeliveryState,
    add_deliveries,
    add_endpoint,
    disable_endpoint,
    settle_deliveries,
)

EVENT = f"evt_{1:032x}"
"""An event that died at the endpoint `shop`."""
DEAD = 60
DELIVERED = 10


def fill_webhooks(connection: sa.Connection, now: datetime, error: str) -> None:
    """Make an endpoint with dead and delivered events, and a disabled one that the settings do not name."""
    add_endpoint(connection, "shop", 0, now - timedelta(days=2))
    add_endpoint(connection, "old-shop", 0, now - timedelta(days=90))
    disable_endpoint(connection, "old-shop", error, now - timedelta(days=30))
    events = [NewDelivery(number, f"evt_{number:032x}") for number in range(1, DEAD + DELIVERED + 3)]
    ids = [delivery.id for delivery in add_deliveries(connection, "shop", 0, events, now - timedelta(hours=3))]
    settle_deliveries(connection, ids[:DEAD], WebhookDeliveryState.DEAD, now)
    settle_deliveries(connection, ids[DEAD : DEAD + DELIVERED], WebhookDeliveryState.DELIVERED, now)
    attempts = [attempt(event.message_id, now, dead=place < DEAD, error=error) for place, event in enumerate(events)]
    log_attempts(connection, attempts[: DEAD + DELIVERED])


def attempt(event: str, at: datetime, *, dead: bool, error: str) -> LoggedAttempt:
    """Return the last attempt with an event."""
    outcome, status = ("rejected", 500) if dead else ("delivered", 204)
    return LoggedAttempt(
        endpoint="shop",
        message_id=event,
        type=EventType.BOUNCED,
        attempt=10 if dead else 1,
        at=at,
        duration_ms=37,
        outcome=outcome,
        status=status,
        error=error if dead else None,
    )
