"""Writes enrolments: enters recipients, moves them along their journey, and ends it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.store.bulk import any_of, found_sql, grouped_rows, id_rows, json_rows
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.enrolments.transitions import EnrolmentEvent, allowed_enrolments_sql
from postroad.store.types import UtcDateTime, sql_time


class Place(NamedTuple):
    """Where an enrolment is: at a step, until ``due_at`` or until its email has ended; or where it ended, and why."""

    step_id: int
    state: EnrolmentState = EnrolmentState.ACTIVE
    due_at: datetime | None = None
    why: ExitReason | None = None


class Entrance(NamedTuple):
    """A recipient who enters a campaign, and the first place.

    ``at``: the time of the entry, which is that of what it names, before the transaction.
    ``goal``: the recipient has reached the goal. ``entry``: the number of this entry.
    """

    recipient_id: int
    place: Place
    at: datetime
    goal: bool = False
    entry: int = 1


class EnrolmentMove(NamedTuple):
    """Enrolments that leave a step for another place. ``goal``: their recipients have reached the goal."""

    enrolment_ids: Sequence[int]
    from_step_id: int
    place: Place
    goal: bool = False


_PLACE: dict[str, TypeEngine[Any]] = {
    "id": sa.BigInteger(),
    "step_id": sa.BigInteger(),
    "state": sa.Text(),
    "due_at": UtcDateTime(),
    "why": sa.Text(),
    "goal": sa.Integer(),
}


def _row(id_: int, place: Place, goal: bool, dialect: str) -> dict[str, Any]:
    return {
        "id": id_,
        "step_id": place.step_id,
        "state": place.state,
        "due_at": sql_time(place.due_at, dialect) if place.due_at is not None else None,
        "why": place.why,
        "goal": int(goal),
    }


def enter(connection: sa.Connection, campaign_id: int, entrances: Sequence[Entrance], now: datetime) -> set[int]:
    """Insert enrolments. Idempotent: an entry of a recipient is made once, and not while an earlier one is active.

    Args:
        connection: A connection in a transaction that writes.
        campaign_id: The campaign.
        entrances: Its new recipients.
        now: The time of the transaction.

    Returns:
        The recipients who were enrolled by this call.
    """
    dialect = connection.dialect.name
    rows = [
        {
            **_row(one.recipient_id, one.place, one.goal, dialect),
            "entry": one.entry,
            "entered_at": sql_time(one.at, dialect),
        }
        for one in entrances
    ]
    columns = {**_PLACE, "entry": sa.Integer(), "entered_at": UtcDateTime()}
    item, parameters = json_rows(connection, "new", columns, rows)
    again = _NONE_ACTIVE if any(one.entry > 1 for one in entrances) else "true"
    statement = sa.text(
        "INSERT INTO enrolment (campaign_id, recipient_id, entry, state, step_id, entered_at, since, due_at, why, "
        "goal_at) SELECT :campaign_id, new.id, new.entry, new.state, new.step_id, new.entered_at, :now, new.due_at, "
        f"new.why, CASE WHEN new.goal = 1 THEN {_now(connection)} END FROM {item} WHERE {again} ORDER BY new.id "
        "ON CONFLICT (campaign_id, recipient_id, entry) DO NOTHING RETURNING recipient_id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return set(connection.execute(statement, {"campaign_id": campaign_id, "now": now, **parameters}).scalars())


_NONE_ACTIVE = "NOT " + found_sql(
    "enrolment AS earlier WHERE earlier.recipient_id = new.id "
    f"AND earlier.state = '{EnrolmentState.ACTIVE}' AND earlier.campaign_id = :campaign_id"
)
_IS_LAST = "NOT " + found_sql(
    "enrolment AS later WHERE later.campaign_id = enrolment.campaign_id "
    "AND later.recipient_id = enrolment.recipient_id AND later.entry > enrolment.entry"
)

_EVENTS = {
    EnrolmentState.ACTIVE: EnrolmentEvent.MOVED,
    EnrolmentState.COMPLETED: EnrolmentEvent.COMPLETED,
    EnrolmentState.EXITED: EnrolmentEvent.EXITED,
}


def move(connection: sa.Connection, moves: Sequence[EnrolmentMove], now: datetime) -> set[int]:
    """Move enrolments to their next places, or end them.

    Args:
        connection: A connection in a transaction that writes.
        moves: The moves. One whose enrolment is at another step than it leaves has no effect.
        now: The time of the transaction.

    Returns:
        The enrolments that moved.
    """
    moved: set[int] = set()
    for state, event in _EVENTS.items():
        if of_state := [one for one in moves if one.place.state is state]:
            moved |= _move(connection, event, of_state, now)
    return moved


_GROUP: dict[str, TypeEngine[Any]] = {
    "from_id": sa.BigInteger(),
    "step_id": sa.BigInteger(),
    "due_at": UtcDateTime(),
    "why": sa.Text(),
    "goal": sa.Integer(),
}


def _move(connection: sa.Connection, event: EnrolmentEvent, moves: Sequence[EnrolmentMove], now: datetime) -> set[int]:
    """Move enrolments to places of one state. Return those that moved."""
    dialect = connection.dialect.name
    groups = [
        ({**_row(0, one.place, one.goal, dialect), "from_id": one.from_step_id}, one.enrolment_ids) for one in moves
    ]
    fence, parameters = grouped_rows(connection, "place", _GROUP, groups)
    # A column that keeps its value is not set: SQLite would write its indexes again.
    values = "step_id = place.step_id, since = :now, due_at = place.due_at"
    if event is not EnrolmentEvent.MOVED:
        values += f", state = '{moves[0].place.state}', why = place.why"
    if any(one.goal for one in moves):
        reached = "enrolment.goal_at IS NULL AND place.goal = 1"
        values += f", goal_at = CASE WHEN {reached} THEN {_now(connection)} ELSE enrolment.goal_at END"
    # PostgreSQL must look up the ids, and not read the whole table.
    looked_up = (
        f"enrolment.id {any_of(connection, 'SELECT place.id FROM place')}" if dialect == "postgresql" else "true"
    )
    statement = sa.text(
        f"{fence} UPDATE enrolment SET {values} FROM place WHERE enrolment.id = place.id AND {looked_up} "
        f"AND enrolment.step_id = place.from_id AND {allowed_enrolments_sql(event)} RETURNING enrolment.id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return set(connection.execute(statement, {"now": now, **parameters}).scalars())


def _by_id(connection: sa.Connection, alias: str, item: str) -> str:
    """Return the SQL condition by which PostgreSQL looks up enrolments by their ids, instead of reading the table."""
    if connection.dialect.name == "sqlite":
        return "true"
    return f"enrolment.id {any_of(connection, f'SELECT {alias}.id FROM {item}')}"


def _now(connection: sa.Connection) -> str:
    """Return the SQL of the parameter ``now`` within an expression, whose type PostgreSQL does not derive."""
    return ":now" if connection.dialect.name == "sqlite" else "CAST(:now AS timestamptz)"


def revive(connection: sa.Connection, enrolment_ids: Sequence[int]) -> set[int]:
    """Make enrolments active again that exited because a touch failed, unless the recipient entered again.

    Returns:
        The enrolments that are active again.
    """
    item, parameters = id_rows(connection, enrolment_ids)
    statement = sa.text(
        f"UPDATE enrolment SET state = '{EnrolmentState.ACTIVE}', why = NULL FROM {item} "
        f"WHERE enrolment.id = batch.id AND {_by_id(connection, 'batch', item)} "
        f"AND {allowed_enrolments_sql(EnrolmentEvent.REVIVED)} AND {_IS_LAST} RETURNING enrolment.id"
    )
    return set(connection.execute(statement, parameters).scalars())


def exit_recipient(
    connection: sa.Connection, recipient_id: int, campaign_id: int, why: ExitReason, now: datetime
) -> int:
    """End the active enrolment of a recipient in one campaign. Returns how many ended."""
    return _exit(connection, "campaign_id = :campaign_id", recipient_id, why, now, {"campaign_id": campaign_id})


def end_after_reply(connection: sa.Connection, recipient_id: int, campaign_id: int, now: datetime) -> int:
    """End the way of a recipient through one campaign after a reply.

    An enrolment that had exited because a touch failed is not revived any more, whatever became of the touch.

    Returns:
        How many active enrolments ended.
    """
    final = sa.text(
        f"UPDATE enrolment SET why = '{ExitReason.REPLIED}' WHERE recipient_id = :recipient_id "
        f"AND campaign_id = :campaign_id AND {allowed_enrolments_sql(EnrolmentEvent.REPLIED)}"
    )
    connection.execute(final, {"recipient_id": recipient_id, "campaign_id": campaign_id})
    return exit_recipient(connection, recipient_id, campaign_id, ExitReason.REPLIED, now)


def exit_suppressed(connection: sa.Connection, recipient_id: int, now: datetime, audience_id: int = 0) -> int:
    """End the active enrolments of a recipient who was suppressed.

    Args:
        connection: A connection in a transaction that writes.
        recipient_id: The recipient.
        now: The time of the transaction.
        audience_id: Only enrolments in campaigns to this audience end; 0: all.

    Returns:
        How many ended.
    """
    scope = (
        "(:audience_id = 0 OR campaign_id IN (SELECT id FROM campaign "
        "WHERE COALESCE(permission_audience_id, audience_id) = :audience_id))"
    )
    return _exit(connection, scope, recipient_id, ExitReason.SUPPRESSED, now, {"audience_id": audience_id})


def _exit(
    connection: sa.Connection, scope: str, recipient_id: int, why: ExitReason, now: datetime, values: dict[str, int]
) -> int:
    statement = sa.text(
        f"UPDATE enrolment SET state = '{EnrolmentState.EXITED}', why = :why, since = :now, due_at = NULL "
        f"WHERE recipient_id = :recipient_id AND {scope} AND {allowed_enrolments_sql(EnrolmentEvent.EXITED)}"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {"recipient_id": recipient_id, **values}
    return connection.execute(statement, {"why": why.value, "now": now, **values}).rowcount


def exit_enrolments(connection: sa.Connection, enrolment_ids: Sequence[int], why: ExitReason, now: datetime) -> int:
    """End those of these enrolments that are active. Returns how many ended."""
    item, parameters = id_rows(connection, enrolment_ids)
    statement = sa.text(
        f"UPDATE enrolment SET state = '{EnrolmentState.EXITED}', why = :why, since = :now, due_at = NULL FROM {item} "
        f"WHERE enrolment.id = batch.id AND {_by_id(connection, 'batch', item)} "
        f"AND {allowed_enrolments_sql(EnrolmentEvent.EXITED)}"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(statement, {"why": why.value, "now": now, **parameters}).rowcount


def record_goals(connection: sa.Connection, enrolment_ids: Sequence[int], now: datetime) -> int:
    """Record that the recipients of these enrolments reached the goal. Returns how many had not before."""
    item, parameters = id_rows(connection, enrolment_ids)
    statement = sa.text(
        f"UPDATE enrolment SET goal_at = :now FROM {item} WHERE enrolment.id = batch.id "
        f"AND {_by_id(connection, 'batch', item)} AND enrolment.goal_at IS NULL "
        f"AND {allowed_enrolments_sql(EnrolmentEvent.GOAL)}"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(statement, {"now": now, **parameters}).rowcount


def delete_enrolments(connection: sa.Connection, enrolment_ids: Sequence[int]) -> int:
    """Delete enrolments of a campaign that is over. Their counts stay. Returns the number of deleted rows."""
    item, parameters = id_rows(connection, enrolment_ids)
    old = any_of(connection, f"SELECT batch.id FROM {item}")
    allowed = allowed_enrolments_sql(EnrolmentEvent.DELETED)
    return connection.execute(sa.text(f"DELETE FROM enrolment WHERE id {old} AND {allowed}"), parameters).rowcount
