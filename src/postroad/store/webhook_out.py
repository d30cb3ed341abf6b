"""Endpoints that get events by webhook: how far each has read the stream, and its deliveries.

A delivery is one event for one endpoint. It is inserted in the transaction that moves the endpoint's cursor, so that
an interruption neither loses an event nor gives it a second delivery. At most `MAX_WAITING` deliveries of an endpoint
wait; the rest of its backlog comes after the cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine
from sqlmodel import Field

from postroad.store.bulk import any_of, id_rows, json_rows
from postroad.store.types import BIG_ID, PartialIndex, StoredRow, StrEnumType, UtcDateTime

MAX_WAITING: Final = 1_000
"""Deliveries of one endpoint that wait at the same time."""


class WebhookDeliveryState(StrEnum):
    """State of a delivery. ``DEAD``: every attempt failed; it can be replayed."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"
    CANCELLED = "cancelled"


_OPEN: Final = "state IN ('waiting', 'dead')"
_AT: Final = sa.bindparam("now", type_=UtcDateTime())


class OutboundEndpoint(StoredRow, table=True):
    """An endpoint of the settings, from the first time that a process saw it."""

    __tablename__ = "webhook_endpoint"

    name: str = Field(primary_key=True, sa_type=sa.String(50))
    cursor: int = Field(sa_type=sa.BigInteger, description="id of the last delivery event that it has read")
    round: int = Field(default=0, description="number of the last replay or redelivery, which tells jobs apart")
    created_at: datetime = Field(sa_type=UtcDateTime)
    disabled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    disabled_for: str | None = Field(default=None, sa_type=sa.String(200), description="why it is disabled")


class WebhookDelivery(StoredRow, table=True):
    """One event for one endpoint."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        sa.UniqueConstraint("endpoint", "message_id", "round"),
        PartialIndex(
            "ix_webhook_delivery_open",
            "endpoint",
            "state",
            "id",
            where=_OPEN,
        ),
        sa.Index("ix_webhook_delivery_created_at", "created_at"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    endpoint: str = Field(sa_type=sa.String(50))
    event_id: int = Field(sa_type=sa.BigInteger, description="id of the delivery event, which may be deleted")
    message_id: str = Field(sa_type=sa.String(40), description="the header webhook-id")
    round: int
    state: WebhookDeliveryState = Field(sa_type=StrEnumType(WebhookDeliveryState))
    created_at: datetime = Field(sa_type=UtcDateTime)
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class EndpointState(NamedTuple):
    """The stored state of an endpoint."""

    name: str
    cursor: int
    round: int
    created_at: datetime
    disabled_at: datetime | None
    disabled_for: str | None


_ENDPOINT: Final = (
    sa.column("name", sa.Text()),
    sa.column("cursor", sa.BigInteger()),
    sa.column("round", sa.Integer()),
    sa.column("created_at", UtcDateTime()),
    sa.column("disabled_at", UtcDateTime()),
    sa.column("disabled_for", sa.Text()),
)
_NAMES: Final = ", ".join(column.name for column in _ENDPOINT)


def endpoint_states(connection: sa.Connection) -> dict[str, EndpointState]:
    """Return the stored endpoints by name, in the order of their names."""
    statement = sa.text(f"SELECT {_NAMES} FROM webhook_endpoint ORDER BY name").columns(*_ENDPOINT)
    return {row.name: EndpointState(*row) for row in connection.execute(statement)}


def lock_endpoint(connection: sa.Connection, name: str) -> EndpointState | None:
    """Return an endpoint, locked until the transaction ends. None: it is not stored."""
    lock = "" if connection.dialect.name == "sqlite" else "FOR UPDATE"
    statement = sa.text(f"SELECT {_NAMES} FROM webhook_endpoint WHERE name = :name {lock}").columns(*_ENDPOINT)
    row = connection.execute(statement, {"name": name}).one_or_none()
    return None if row is None else EndpointState(*row)


def add_endpoint(connection: sa.Connection, name: str, cursor: int, now: datetime) -> None:
    """Store an endpoint that gets the events after ``cursor``. Idempotent: a stored endpoint is not changed."""
    statement = sa.text(
        "INSERT INTO webhook_endpoint (name, cursor, round, created_at) VALUES (:name, :cursor, 0, :now) "
        "ON CONFLICT (name) DO NOTHING"
    ).bindparams(_AT)
    connection.execute(statement, {"name": name, "cursor": cursor, "now": now})


def set_cursor(connection: sa.Connection, name: str, cursor: int, round_: int) -> None:
    """Set the place of an endpoint in the stream, and the number of its last replay. It is locked."""
    statement = sa.text("UPDATE webhook_endpoint SET cursor = :cursor, round = :round WHERE name = :name")
    connection.execute(statement, {"name": name, "cursor": cursor, "round": round_})


def disable_endpoint(connection: sa.Connection, name: str, why: str, now: datetime) -> bool:
    """Disable an endpoint. Returns whether it was enabled."""
    statement = sa.text(
        "UPDATE webhook_endpoint SET disabled_at = :now, disabled_for = :why WHERE name = :name AND disabled_at IS NULL"
    ).bindparams(_AT)
    return connection.execute(statement, {"name": name, "why": why[:200], "now": now}).rowcount == 1


def enable_endpoint(connection: sa.Connection, name: str) -> bool:
    """Enable an endpoint. Returns whether it was disabled."""
    statement = sa.text(
        "UPDATE webhook_endpoint SET disabled_at = NULL, disabled_for = NULL "
        "WHERE name = :name AND disabled_at IS NOT NULL"
    )
    return connection.execute(statement, {"name": name}).rowcount == 1


class NewDelivery(NamedTuple):
    """An event to deliver."""

    event_id: int
    message_id: str


class OpenDelivery(NamedTuple):
    """A delivery that waits or is dead."""

    id: int
    endpoint: str
    event_id: int
    message_id: str
    round: int
    created_at: datetime


_DELIVERY: Final = (
    sa.column("id", sa.BigInteger()),
    sa.column("endpoint", sa.Text()),
    sa.column("event_id", sa.BigInteger()),
    sa.column("message_id", sa.Text()),
    sa.column("round", sa.Integer()),
    sa.column("created_at", UtcDateTime()),
)
_DELIVERY_NAMES: Final = ", ".join(column.name for column in _DELIVERY)


def add_deliveries(
    connection: sa.Connection, endpoint: str, round_: int, events: Sequence[NewDelivery], now: datetime
) -> list[OpenDelivery]:
    """Insert waiting deliveries. One that exists in this round is skipped. Returns the new ones."""
    if not events:
        return []
    columns: dict[str, TypeEngine[Any]] = {"event_id": sa.BigInteger(), "message_id": sa.Text()}
    item, parameters = json_rows(connection, "new", columns, [event._asdict() for event in events])
    statement = sa.text(
        "INSERT INTO webhook_delivery (endpoint, event_id, message_id, round, state, created_at) "
        f"SELECT :endpoint, new.event_id, new.message_id, CAST(:round AS INTEGER), 'waiting', :now FROM {item} "
        "WHERE true ORDER BY new.event_id ON CONFLICT (endpoint, message_id, round) DO NOTHING "
        f"RETURNING {_DELIVERY_NAMES}"
    )
    statement = statement.bindparams(_AT, sa.bindparam("endpoint", type_=sa.Text()))
    values = {"endpoint": endpoint, "round": round_, "now": now, **parameters}
    rows = connection.execute(statement.columns(*_DELIVERY), values).all()
    return sorted((OpenDelivery(*row) for row in rows), key=attrgetter("event_id"))


def open_deliveries(
    connection: sa.Connection, endpoint: str, state: WebhookDeliveryState, *, after: int = 0, limit: int = MAX_WAITING
) -> list[OpenDelivery]:
    """Return the deliveries of an endpoint that wait, or are dead, the oldest first, after an id."""
    # The state is part of the statement, so that it matches the condition of the index on both databases.
    statement = sa.text(
        f"SELECT {_DELIVERY_NAMES} FROM webhook_delivery WHERE endpoint = :endpoint AND state = '{state.value}' "
        f"AND {_OPEN} AND id > :after ORDER BY id LIMIT :limit"
    ).columns(*_DELIVERY)
    rows = connection.execute(statement, {"endpoint": endpoint, "after": after, "limit": limit})
    return [OpenDelivery(*row) for row in rows]


def count_open(connection: sa.Connection, endpoint: str, state: WebhookDeliveryState, most: int) -> int:
    """Count the deliveries of an endpoint that wait, or are dead; at most ``most``."""
    statement = sa.text(
        "SELECT count(*) FROM (SELECT 1 FROM webhook_delivery WHERE endpoint = :endpoint "
        f"AND state = '{state.value}' AND {_OPEN} LIMIT :most) AS found"
    )
    return int(connection.execute(statement, {"endpoint": endpoint, "most": most}).scalar_one())


def deliveries_by_id(
    connection: sa.Connection, ids: Sequence[int]
) -> dict[int, tuple[OpenDelivery, WebhookDeliveryState]]:
    """Return deliveries with their states, by id. One that was deleted is absent."""
    item, parameters = id_rows(connection, ids)
    names = ", ".join(f"webhook_delivery.{column.name}" for column in _DELIVERY)
    statement = sa.text(
        f"SELECT {names}, webhook_delivery.state FROM {item} JOIN webhook_delivery ON webhook_delivery.id = batch.id"
    ).columns(*_DELIVERY, sa.column("state", sa.Text()))
    found = connection.execute(statement, parameters)
    return {row.id: (OpenDelivery(*row[:-1]), WebhookDeliveryState(row.state)) for row in found}


def settle_deliveries(
    connection: sa.Connection, ids: Sequence[int], state: WebhookDeliveryState, now: datetime
) -> None:
    """Set the state of deliveries that are not delivered. ``WAITING``: they are sent again."""
    if not ids:
        return
    item, parameters = id_rows(connection, ids)
    settled = "NULL" if state is WebhookDeliveryState.WAITING else ":now"
    statement = sa.text(
        f"UPDATE webhook_delivery SET state = '{state.value}', settled_at = {settled} "
        f"WHERE id {any_of(connection, f'SELECT batch.id FROM {item}')} AND state <> 'delivered'"
    )
    values: dict[str, object] = {**parameters}
    if state is not WebhookDeliveryState.WAITING:
        statement, values["now"] = statement.bindparams(_AT), now
    connection.execute(statement, values)


def event_of_delivery(connection: sa.Connection, endpoint: str, message_id: str) -> int | None:
    """Return the id of the event that an endpoint got under this message id. None: its log has no such delivery."""
    statement = sa.text(
        "SELECT event_id FROM webhook_delivery WHERE endpoint = :endpoint AND message_id = :id ORDER BY round LIMIT 1"
    )
    found: int | None = connection.execute(statement, {"endpoint": endpoint, "id": message_id}).scalar()
    return found


def oldest_open(connection: sa.Connection, endpoint: str, cursor: int) -> datetime | None:
    """Return the time of the oldest event that an endpoint has not got. None: it has all of them.

    A dead delivery does not count.
    """
    waiting = open_deliveries(connection, endpoint, WebhookDeliveryState.WAITING, limit=1)
    of_delivery = sa.text("SELECT at FROM delivery_event WHERE id = :id").columns(sa.column("at", UtcDateTime()))
    following = sa.text("SELECT at FROM delivery_event WHERE id > :cursor ORDER BY id LIMIT 1")
    following_at = following.columns(sa.column("at", UtcDateTime()))
    times: list[datetime | None] = [connection.execute(following_at, {"cursor": cursor}).scalar()]
    if waiting:
        times += [connection.execute(of_delivery, {"id": waiting[0].event_id}).scalar() or waiting[0].created_at]
    return min((at for at in times if at is not None), default=None)
