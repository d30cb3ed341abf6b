"""The state of each endpoint: enabled or disabled, its lag, what waits and what is dead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from msgspec import Struct

from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.engine import read
from postroad.store.webhook_log import log_page
from postroad.store.webhook_out import WebhookDeliveryState, count_open, endpoint_states, oldest_open

MAX_COUNTED: Final = 10_000


class EndpointStatus(StrEnum):
    """Whether an endpoint gets events."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    NEW = "new"  # no recorder has seen it yet
    REMOVED = "removed"  # the settings no longer name it


class EndpointReport(Struct, frozen=True, kw_only=True):
    """One endpoint. ``waiting``, ``dead``: deliveries, at most 10,000 are counted. ``lag_s``: age of the oldest event
    that it has not got, in seconds; 0: it has all. ``url``: without its query, which may contain a secret.
    """

    name: str
    status: EndpointStatus
    url: str
    events: tuple[str, ...]
    lag_s: float
    waiting: int
    dead: int
    since: datetime | None
    disabled_at: datetime | None
    disabled_for: str | None
    last_at: datetime | None
    last_outcome: str | None
    last_error: str | None


def endpoint_reports(
    engine: sa.Engine, settings: Mapping[str, WebhookEndpointSettings], now: datetime
) -> list[EndpointReport]:
    """Return the state of each endpoint of the settings and of the ledger, by name. Raises UnavailableError."""
    with read(engine) as connection:
        states = endpoint_states(connection)
        reports = []
        for name in sorted(settings.keys() | states.keys()):
            given, state = settings.get(name), states.get(name)
            last = log_page(connection, endpoint=name, message_id=None, before=None, limit=1)
            oldest = None if state is None else oldest_open(connection, name, state.cursor)
            status = EndpointStatus.ENABLED
            if given is None:
                status = EndpointStatus.REMOVED
            elif state is None:
                status = EndpointStatus.NEW
            elif state.disabled_at is not None:
                status = EndpointStatus.DISABLED
            reports.append(
                EndpointReport(
                    name=name,
                    status=status,
                    url="" if given is None else given.url.partition("?")[0],
                    events=() if given is None else tuple(map(str, given.events)),
                    lag_s=0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0),
                    waiting=count_open(connection, name, WebhookDeliveryState.WAITING, MAX_COUNTED),
                    dead=count_open(connection, name, WebhookDeliveryState.DEAD, MAX_COUNTED),
                    since=None if state is None else state.created_at,
                    disabled_at=None if state is None else state.disabled_at,
                    disabled_for=None if state is None else state.disabled_for,
                    last_at=last[0].at if last else None,
                    last_outcome=last[0].outcome if last else None,
                    last_error=last[0].error if last else None,
                )
            )
    return reports
