"""Finds what moves enrolments, a bounded step at a time: times that are over, and touches that ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import any_of, id_rows, lookup_join
from postroad.store.enrolment import FAILED, EnrolmentState
from postroad.store.ledger import ENTRY_OF_TOUCH, TouchState
from postroad.store.planning import Member
from postroad.store.recipient import place_sql
from postroad.store.touches.transitions import states_sql
from postroad.store.types import UtcDateTime

PAGE = 350
"""Enrolments that one transaction moves."""

READ = 4 * PAGE
"""Enrolments that a pass reads at once, without a lock, before it moves them in several transactions."""


class DueEnrolment(NamedTuple):
    """An active enrolment whose time is over. ``entry``: the number of the entry."""

    id: int
    step_id: int
    due_at: datetime
    entry: int
    member: Member


class AcceptedEnrolment(NamedTuple):
    """A touch that was accepted or skipped, and the enrolment of its recipient, if it is at the step of the touch."""

    touch_id: int
    id: int | None
    state: str | None
    settled_at: datetime
    due_at: datetime
    entry: int
    member: Member


class FailedTouch(NamedTuple):
    """A touch that ended otherwise than accepted, and the enrolment that waits for it, if any does.

    ``cause``: why it ended, or the last reply of the receiver.
    """

    touch_id: int
    id: int | None
    recipient_id: int
    step_id: int
    state: TouchState
    cause: str | None


_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
MEMBER_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    sa.column("recipient_id", sa.Integer()),
    *(sa.column(name, sa.Text()) for name in ("address", "time_zone", "country", "subdivision")),
)
"""Columns of a `Member`."""


def member_sql(connection: sa.Connection) -> str:
    """Return the SQL of the columns of a `Member`, of the row ``recipient``."""
    return f"recipient.id AS recipient_id, recipient.address, recipient.time_zone, {place_sql(connection)}"


def due_enrolments(
    connection: sa.Connection, campaign_id: int, now: datetime, after: DueEnrolment | None = None, limit: int = PAGE
) -> list[DueEnrolment]:
    """Return active enrolments that are due, in order of their time. ``after``: the last one of the page before."""
    recipient = lookup_join(connection, "recipient", "recipient.id = due.recipient_id")
    statement = sa.text(
        f"SELECT due.id, due.step_id, due.due_at, due.entry, {member_sql(connection)} FROM "
        "(SELECT id, recipient_id, step_id, due_at, entry FROM enrolment WHERE campaign_id = :campaign_id "
        f"AND state = '{EnrolmentState.ACTIVE}' AND due_at IS NOT NULL AND due_at <= :now "
        "AND (due_at, id) > (:since, :after_id) ORDER BY due_at, id LIMIT :limit) AS due "
        f"{recipient} ORDER BY due.due_at, due.id"
    ).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in ("now", "since")))
    columns: list[sa.ColumnClause[Any]] = [
        *_integers("id", "step_id"),
        sa.column("due_at", UtcDateTime()),
        *_integers("entry"),
        *MEMBER_COLUMNS,
    ]
    values = {
        "campaign_id": campaign_id,
        "now": now,
        "since": after.due_at if after is not None else _BEFORE_ALL,
        "after_id": after.id if after is not None else 0,
        "limit": limit,
    }
    rows = connection.execute(statement.columns(*columns), values)
    return [DueEnrolment(row[0], row[1], row[2], row[3], Member(*row[4:])) for row in rows]


def accepted_enrolments(
    connection: sa.Connection, campaign_id: int, step_id: int, after: int, limit: int = PAGE
) -> list[AcceptedEnrolment]:
    """Return touches of a step, accepted or skipped, after which no step was taken yet, in order of their ids."""
    recipient = lookup_join(connection, "recipient", "recipient.id = accepted.recipient_id")
    mine = (
        "enrolment.campaign_id = :campaign_id AND enrolment.recipient_id = accepted.recipient_id "
        "AND enrolment.entry = accepted.entry AND enrolment.step_id = :step_id"
    )
    enrolment = lookup_join(connection, "enrolment", mine, outer=True)
    statement = sa.text(
        "SELECT accepted.id, enrolment.id, enrolment.state, accepted.settled_at, accepted.due_at, accepted.entry, "
        f"{member_sql(connection)} FROM (SELECT id, recipient_id, settled_at, due_at, "
        f"{ENTRY_OF_TOUCH} AS entry FROM touch WHERE campaign_id = :campaign_id AND step_id = :step_id AND follow_up "
        "AND state IN ('accepted', 'skipped') AND id > :after ORDER BY id LIMIT :limit) AS accepted "
        f"{recipient} {enrolment} ORDER BY accepted.id"
    ).columns(
        *_integers("touch_id", "id"),
        sa.column("state", sa.Text()),
        sa.column("settled_at", UtcDateTime()),
        sa.column("due_at", UtcDateTime()),
        *_integers("entry"),
        *MEMBER_COLUMNS,
    )
    values = {"campaign_id": campaign_id, "step_id": step_id, "after": after, "limit": limit}
    rows = connection.execute(statement, values)
    return [AcceptedEnrolment(row[0], row[1], row[2], row[3], row[4], row[5], Member(*row[6:])) for row in rows]


def failed_touches(connection: sa.Connection, campaign_id: int, after: int, limit: int = PAGE) -> list[FailedTouch]:
    """Return touches that failed and whose enrolments have not exited, in order of their ids."""
    waiting = (
        "enrolment.campaign_id = :campaign_id AND enrolment.recipient_id = failed.recipient_id AND enrolment.entry = "
        f"failed.entry AND enrolment.step_id = failed.step_id AND enrolment.state = '{EnrolmentState.ACTIVE}'"
    )
    enrolment = lookup_join(connection, "enrolment", waiting, outer=True)
    statement = sa.text(
        "SELECT failed.id, enrolment.id, failed.recipient_id, failed.step_id, failed.state, failed.reply FROM "
        f"(SELECT id, recipient_id, step_id, {ENTRY_OF_TOUCH} AS entry, state, reply FROM touch "
        f"WHERE campaign_id = :campaign_id AND enrolled AND state {states_sql(FAILED)} AND id > :after "
        "ORDER BY id LIMIT :limit) AS failed "
        f"{enrolment} ORDER BY failed.id"
    )
    rows = connection.execute(statement, {"campaign_id": campaign_id, "after": after, "limit": limit})
    return [FailedTouch(*row)._replace(state=TouchState(row[4])) for row in rows]


def any_failed(connection: sa.Connection, campaign_id: int) -> bool:
    """Return whether a touch failed and its enrolment has not exited."""
    return bool(failed_touches(connection, campaign_id, after=0, limit=1))


def last_enrolled(connection: sa.Connection, campaign_id: int) -> int:
    """Return the highest id of a recipient of a campaign; 0 without enrolments."""
    # Only the unique key has this range and this order.
    statement = sa.text(
        "SELECT recipient_id FROM enrolment WHERE campaign_id <= :id AND campaign_id >= :id "
        "ORDER BY campaign_id DESC, recipient_id DESC LIMIT 1"
    )
    return connection.execute(statement, {"id": campaign_id}).scalar() or 0


class EnrolmentKey(NamedTuple):
    """One enrolment and its recipient. ``goal``: the recipient has reached the goal."""

    id: int
    recipient_id: int
    state: str
    goal: bool


def enrolment_page(connection: sa.Connection, campaign_id: int, *, after: int, limit: int = PAGE) -> list[EnrolmentKey]:
    """Return enrolments of a campaign whose recipient ids are greater than ``after``, in that order.

    All entries of the last recipient are among them, so there may be more than ``limit``.
    """
    columns = "SELECT id, recipient_id, state, goal_at IS NOT NULL AS goal, entry FROM enrolment"
    statement = sa.text(
        f"{columns} WHERE (campaign_id, recipient_id) > (:campaign_id, :after) AND campaign_id <= :campaign_id "
        "ORDER BY campaign_id, recipient_id, entry LIMIT :limit"
    )
    values = {"campaign_id": campaign_id, "after": after, "limit": limit}
    rows = list(connection.execute(statement, values))
    if len(rows) == limit:
        rest = sa.text(
            f"{columns} WHERE campaign_id = :campaign_id AND recipient_id = :last AND entry > :entry ORDER BY entry"
        )
        values = {"campaign_id": campaign_id, "last": rows[-1].recipient_id, "entry": rows[-1].entry}
        rows += connection.execute(rest, values)
    return [EnrolmentKey(*row[:4]) for row in rows]


class LastEntry(NamedTuple):
    """The last entry of a recipient into a campaign. ``ended``: its enrolment completed or exited."""

    number: int
    at: datetime
    ended: bool


def last_entries(connection: sa.Connection, campaign_id: int, recipient_ids: Sequence[int]) -> dict[int, LastEntry]:
    """Return the last entries of these recipients into a campaign. Recipients without one are missing."""
    item, parameters = id_rows(connection, recipient_ids)
    ids = any_of(connection, f"SELECT batch.id FROM {item}")
    statement = sa.text(
        "SELECT recipient_id, entry, entered_at, state FROM enrolment "
        f"WHERE campaign_id = :campaign_id AND recipient_id {ids} ORDER BY recipient_id, entry"
    ).columns(
        *_integers("recipient_id", "entry"), sa.column("entered_at", UtcDateTime()), sa.column("state", sa.Text())
    )
    rows = connection.execute(statement, {"campaign_id": campaign_id, **parameters})
    return {row[0]: LastEntry(row[1], row[2], row[3] != EnrolmentState.ACTIVE) for row in rows}


def _integers(*names: str) -> list[sa.ColumnClause[int]]:
    return [sa.column(name, sa.Integer()) for name in names]
