"""Draws the shares of a rollout among withheld touches, and releases them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.store.bulk import json_rows
from postroad.store.ledger import TouchState
from postroad.store.touches.transitions import TouchEvent, allowed_sql
from postroad.store.types import UtcDateTime, sql_time


class DrawnTouch(NamedTuple):
    """A touch, and the share of the rollout that it is drawn into."""

    touch_id: int
    share: int


class ReleasedTouch(NamedTuple):
    """A touch that is let go, and when it is due."""

    touch_id: int
    due_at: datetime


def draw_shares(connection: sa.Connection, touches: Sequence[DrawnTouch]) -> int:
    """Record the shares of withheld touches. Returns the number of touches that are withheld."""
    rows = [{"id": touch.touch_id, "share": touch.share} for touch in touches]
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "share": sa.SmallInteger()}
    fence, parameters = _locked(connection, "drawn", "share", columns, rows)
    statement = sa.text(
        f"{fence} UPDATE touch SET share = mine.share FROM mine "
        f"WHERE touch.id = mine.id AND {allowed_sql(TouchEvent.DRAWN, state='mine.state')} RETURNING touch.id"
    )
    return len(connection.execute(statement, parameters).all())


def release(connection: sa.Connection, touches: Sequence[ReleasedTouch]) -> int:
    """Move withheld touches to ``planned``, with their due times.

    ``first_due_at`` keeps the time at which such a touch was due first, from which its delay counts.

    Returns:
        The number of touches that moved.
    """
    dialect = connection.dialect.name
    rows = [{"id": touch.touch_id, "due_at": sql_time(touch.due_at, dialect)} for touch in touches]
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "due_at": UtcDateTime()}
    fence, parameters = _locked(connection, "released", "due_at", columns, rows)
    allowed = allowed_sql(TouchEvent.RELEASED, TouchState.PLANNED, state="mine.state")
    statement = sa.text(
        f"{fence} UPDATE touch SET state = '{TouchState.PLANNED}', due_at = mine.due_at, first_due_at = "
        "CASE WHEN mine.due_at = touch.due_at THEN touch.first_due_at "
        "ELSE COALESCE(touch.first_due_at, touch.due_at) END "
        f"FROM mine WHERE touch.id = mine.id AND {allowed} RETURNING touch.id"
    )
    return len(connection.execute(statement, parameters).all())


def _locked(
    connection: sa.Connection,
    alias: str,
    column: str,
    columns: dict[str, TypeEngine[Any]],
    rows: Sequence[Mapping[str, Any]],
) -> tuple[str, dict[str, str]]:
    """Return a WITH clause `mine` of touches, locked, with their states and a new value each. See `locked_touches`."""
    item, parameters = json_rows(connection, alias, columns, rows)
    lock = "" if connection.dialect.name == "sqlite" else "ORDER BY touch.id FOR UPDATE OF touch"
    joined = f"{item} JOIN touch ON touch.id = {alias}.id"
    return (
        f"WITH mine AS MATERIALIZED (SELECT touch.id, touch.state, {alias}.{column} FROM {joined} {lock})",
        parameters,
    )
