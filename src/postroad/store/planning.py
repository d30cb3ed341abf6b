"""Reads the recipients for whom touches are to be planned: members of an audience, and recipients of the email before.

They are read a step at a time, and one short transaction plans each step, so that a large audience does not hold the
database.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.store.bulk import any_of
from postroad.store.recipient import place_sql
from postroad.store.touches.planning import PlannedStep
from postroad.store.types import UtcDateTime

STEP = 250
"""Touches that one transaction plans."""


class Member(NamedTuple):
    """A recipient for the first email of a campaign."""

    recipient_id: int
    address: str
    time_zone: str | None
    country: str | None
    subdivision: str | None


class AcceptedTouch(NamedTuple):
    """A touch that was accepted or skipped, whose recipient gets the next email."""

    touch_id: int
    recipient_id: int
    address: str
    time_zone: str | None
    country: str | None
    subdivision: str | None
    settled_at: datetime
    due_at: datetime


class AwaitingTouch(NamedTuple):
    """A touch that waits for the variant of its step to be decided."""

    touch_id: int
    recipient_id: int
    due_at: datetime
    time_zone: str | None
    country: str | None
    subdivision: str | None


def awaiting_touches(
    connection: sa.Connection, campaign_id: int, step_id: int, *, limit: int = STEP
) -> list[AwaitingTouch]:
    """Return the first touches of a step that wait for its variant, in order of their ids."""
    statement = sa.text(
        "SELECT waiting.id, waiting.recipient_id, waiting.due_at, recipient.time_zone, "
        f"{place_sql(connection)} FROM (SELECT id, recipient_id, due_at FROM touch WHERE campaign_id = :campaign_id "
        "AND step_id = :step_id AND state = 'awaiting' ORDER BY id LIMIT :limit) AS waiting CROSS JOIN recipient "
        "WHERE recipient.id = waiting.recipient_id ORDER BY waiting.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("recipient_id", sa.Integer()),
        sa.column("due_at", UtcDateTime()),
        sa.column("time_zone", sa.Text()),
        sa.column("country", sa.Text()),
        sa.column("subdivision", sa.Text()),
    )
    values = {"campaign_id": campaign_id, "step_id": step_id, "limit": limit}
    return [AwaitingTouch(*row) for row in connection.execute(statement, values)]


def unfrozen_members(
    connection: sa.Connection, audience_id: int, step: PlannedStep, limit: int = STEP, *, after: int = 0
) -> list[Member]:
    """Return the next members of an audience after the last touch of a campaign's first step, in order of their ids.

    ``after``: a later recipient who was already considered, and for whom no touch is planned.
    """
    # Only the unique key has this range and this order. For `step_id = …` PostgreSQL may read the index of recipients
    # instead, and skip the touches of all other campaigns.
    frozen = sa.text(
        "SELECT recipient_id FROM touch WHERE (campaign_id, step_id) <= (:campaign_id, :step_id) "
        "AND campaign_id >= :campaign_id AND step_id >= :step_id "
        "ORDER BY campaign_id DESC, step_id DESC, recipient_id DESC LIMIT 1"
    )
    last = connection.execute(frozen, {"campaign_id": step.campaign_id, "step_id": step.step_id}).scalar() or 0
    return members_after(connection, audience_id, max(last, after), limit)


def members_after(connection: sa.Connection, audience_id: int, last: int, limit: int = STEP) -> list[Member]:
    """Return the next members of an audience after a recipient, in order of their ids."""
    members = (
        "SELECT recipient_id FROM audience_member WHERE audience_id = :audience_id AND recipient_id > :last "
        "ORDER BY recipient_id LIMIT :limit"
    )
    statement = sa.text(
        f"SELECT id, address, time_zone, {place_sql(connection)} FROM recipient "
        f"WHERE id {any_of(connection, members)} ORDER BY id"
    )
    values = {"audience_id": audience_id, "last": last, "limit": limit}
    return [Member(*row) for row in connection.execute(statement, values)]


def awaiting_follow_up(
    connection: sa.Connection, campaign_id: int, step_id: int, *, after: int, limit: int = STEP
) -> list[AcceptedTouch]:
    """Return touches of a step, accepted or skipped, after which the next email is not planned, ordered by id."""
    statement = sa.text(
        "SELECT accepted.id, accepted.recipient_id, recipient.address, recipient.time_zone, "
        f"{place_sql(connection)}, accepted.settled_at, accepted.due_at FROM "
        "(SELECT id, recipient_id, settled_at, due_at FROM touch WHERE campaign_id = :campaign_id "
        "AND step_id = :step_id AND follow_up AND state IN ('accepted', 'skipped') AND id > :after "
        "ORDER BY id LIMIT :limit) AS accepted CROSS JOIN recipient "
        "WHERE recipient.id = accepted.recipient_id ORDER BY accepted.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("recipient_id", sa.Integer()),
        sa.column("address", sa.Text()),
        sa.column("time_zone", sa.Text()),
        sa.column("country", sa.Text()),
        sa.column("subdivision", sa.Text()),
        sa.column("settled_at", UtcDateTime()),
        sa.column("due_at", UtcDateTime()),
    )
    values = {"campaign_id": campaign_id, "step_id": step_id, "after": after, "limit": limit}
    return [AcceptedTouch(*row) for row in connection.execute(statement, values)]


def any_follow_up(connection: sa.Connection, campaign_id: int) -> bool:
    """Return whether a campaign has a touch, accepted or skipped, after which the next email is not planned."""
    statement = sa.text(
        "SELECT 1 FROM touch WHERE campaign_id = :campaign_id AND follow_up AND state IN ('accepted', 'skipped') "
        "LIMIT 1"
    )
    return connection.execute(statement, {"campaign_id": campaign_id}).first() is not None
