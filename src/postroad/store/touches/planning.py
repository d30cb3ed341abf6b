"""Inserts touches, and marks those whose end has had its consequence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.store.bulk import any_of, json_rows, locked_touches
from postroad.store.ledger import TouchState, request_of_entry
from postroad.store.suppression import suppressed_sql
from postroad.store.touches.transitions import Condition, TouchEvent, allowed_sql
from postroad.store.types import UtcDateTime, sql_time


class PlannedStep(NamedTuple):
    """The step that touches are planned for.

    ``follow_up``: its acceptance has a consequence, such as another email. ``enrolled``: so has its failure.
    """

    campaign_id: int
    step_id: int
    follow_up: bool
    enrolled: bool = False


class NewTouch(NamedTuple):
    """A touch to plan. ``hashed``: hash of the address, by which a suppression may be stored.

    ``entry``: number of the recipient's entry into the journey.
    """

    recipient_id: int
    due_at: datetime
    hashed: str | None
    entry: int = 1


class SeedTouch(NamedTuple):
    """A touch of a seed list to plan."""

    recipient_id: int
    due_at: datetime


def plan_touches(connection: sa.Connection, step: PlannedStep, touches: Sequence[NewTouch], now: datetime) -> int:
    """Insert touches of a step. Those of suppressed recipients are inserted as ``suppressed``.

    All others of a recalled step are inserted as ``cancelled``.

    Returns:
        The number of touches that did not exist.
    """
    dialect = connection.dialect.name
    columns: dict[str, TypeEngine[Any]] = {
        "id": sa.BigInteger(),
        "due_at": UtcDateTime(),
        "hashed": sa.Text(),
        "request": sa.BigInteger(),
    }
    rows = [
        {
            "id": touch.recipient_id,
            "due_at": sql_time(touch.due_at, dialect),
            "hashed": touch.hashed,
            "request": request_of_entry(touch.entry),
        }
        for touch in touches
    ]
    item, parameters = json_rows(connection, "new", columns, rows)
    recipients = (
        f"SELECT id, address, domain FROM recipient WHERE id {any_of(connection, f'SELECT new.id FROM {item}')}"
    )
    # MATERIALIZED: one lookup of the suppression for each recipient. CROSS JOIN: SQLite keeps this order, and reads the
    # parameter once instead of once for each recipient.
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim, settled_at, follow_up, "
        "enrolled, request_id) WITH found AS MATERIALIZED "
        f"(SELECT new.id, new.due_at, new.request, {suppressed_sql('new.hashed')} AS suppressed, "
        "(SELECT recalled_at IS NOT NULL FROM step WHERE step.id = :step_id) AS recalled "
        f"FROM campaign CROSS JOIN {item} CROSS JOIN ({recipients}) AS recipient "
        "WHERE campaign.id = :campaign_id AND recipient.id = new.id) "
        f"SELECT :campaign_id, :step_id, found.id, CASE WHEN found.suppressed THEN '{TouchState.SUPPRESSED}' "
        f"WHEN found.recalled THEN '{TouchState.CANCELLED}' ELSE '{TouchState.PLANNED}' END, "
        "found.due_at, 0, CASE WHEN found.suppressed OR found.recalled THEN :now END, :follow_up, :enrolled, "
        "found.request FROM found WHERE true ORDER BY found.id "
        "ON CONFLICT (campaign_id, step_id, recipient_id, request_id) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(insert, {**step._asdict(), "now": now, **parameters}).rowcount


def plan_seed_touches(connection: sa.Connection, campaign_id: int, step_id: int, touches: Sequence[SeedTouch]) -> None:
    """Insert the touches of a seed list, where they do not exist."""
    dialect = connection.dialect.name
    rows = [{"id": touch.recipient_id, "due_at": sql_time(touch.due_at, dialect)} for touch in touches]
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "due_at": UtcDateTime()}
    item, parameters = json_rows(connection, "due", columns, rows)
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim) "
        f"SELECT :campaign_id, :step_id, due.id, '{TouchState.PLANNED}', due.due_at, 0 FROM {item} WHERE true "
        "ON CONFLICT (campaign_id, step_id, recipient_id, request_id) DO NOTHING"
    )
    connection.execute(insert, {"campaign_id": campaign_id, "step_id": step_id, **parameters})


def mark_followed_up(connection: sa.Connection, touch_ids: Sequence[int]) -> set[int]:
    """Record that the steps after these touches are taken. Returns the touches that this call marked."""
    fence, parameters = locked_touches(connection, touch_ids, "state, follow_up")
    allowed = allowed_sql(
        TouchEvent.FOLLOWED_UP, state="mine.state", conditions={Condition.FOLLOW_UP: "mine.follow_up"}
    )
    statement = sa.text(
        f"{fence} UPDATE touch SET follow_up = false, enrolled = false FROM mine "
        f"WHERE touch.id = mine.id AND {allowed} RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters).scalars())


def extend_touches(connection: sa.Connection, touch_ids: Sequence[int], since: datetime) -> int:
    """Record that a step follows touches of an email that was the last one. Idempotent.

    Args:
        connection: A connection in a transaction that writes.
        touch_ids: The touches. One that was accepted or skipped before has no follow-up.
        since: When the step was added.

    Returns:
        The number of touches that have a follow-up now.
    """
    fence, parameters = locked_touches(connection, touch_ids, "state, settled_at")
    later = {Condition.ENDED_LATER: "mine.settled_at >= :since"}
    allowed = allowed_sql(TouchEvent.EXTENDED, state="mine.state", conditions=later)
    statement = sa.text(
        f"{fence} UPDATE touch SET follow_up = true FROM mine WHERE touch.id = mine.id AND {allowed} RETURNING touch.id"
    ).bindparams(sa.bindparam("since", type_=UtcDateTime()))
    return len(connection.execute(statement, {"since": since, **parameters}).all())


def mark_left(connection: sa.Connection, touch_ids: Sequence[int]) -> set[int]:
    """Record that the enrolments of failed touches exited: what is accepted later still has its follow-up.

    Args:
        connection: A connection in a transaction that writes.
        touch_ids: The touches.

    Returns:
        The touches that this call marked.
    """
    fence, parameters = locked_touches(connection, touch_ids, "state, enrolled")
    allowed = allowed_sql(TouchEvent.LEFT, state="mine.state", conditions={Condition.ENROLLED: "mine.enrolled"})
    statement = sa.text(
        f"{fence} UPDATE touch SET enrolled = false FROM mine WHERE touch.id = mine.id AND {allowed} RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters).scalars())
