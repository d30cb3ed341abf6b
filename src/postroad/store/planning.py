"""Touches that are to be planned: members of an audience, and recipients who accepted the email before.

Each is read a step at a time and planned by one short transaction, so that neither an audience nor a day's follow-ups
hold the database for longer than some hundred rows take.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.store.bulk import any_of, json_rows
from postroad.store.ledger import locked_batch
from postroad.store.suppression import suppressed_sql
from postroad.store.types import UtcDateTime, sql_instant

STEP = 250
"""Touches that one transaction plans."""


class Member(NamedTuple):
    """A recipient who is to get the first email of a campaign."""

    recipient_id: int
    address: str
    time_zone: str | None


class AcceptedTouch(NamedTuple):
    """A touch that was accepted, and whose recipient is to get the next email."""

    touch_id: int
    recipient_id: int
    address: str
    time_zone: str | None
    settled_at: datetime
    due_at: datetime


class NewTouch(NamedTuple):
    """A touch to plan. ``hashed``: the hash of the address, which a suppression may be kept by."""

    recipient_id: int
    due_at: datetime
    hashed: str | None


class PlannedStep(NamedTuple):
    """The step that touches are planned for. ``follow_up``: another email comes after it."""

    campaign_id: int
    step_id: int
    follow_up: bool


def unfrozen_members(connection: sa.Connection, audience_id: int, step: PlannedStep, limit: int = STEP) -> list[Member]:
    """Return the next members of an audience without a touch of a campaign's first step, in order of their ids."""
    # A range and a whole order, which only the key has. For `step_id = …` PostgreSQL may read the index of recipients
    # instead, and pass over the touches of all other campaigns.
    frozen = sa.text(
        "SELECT recipient_id FROM touch WHERE (campaign_id, step_id) <= (:campaign_id, :step_id) "
        "AND campaign_id >= :campaign_id AND step_id >= :step_id "
        "ORDER BY campaign_id DESC, step_id DESC, recipient_id DESC LIMIT 1"
    )
    last = connection.execute(frozen, {"campaign_id": step.campaign_id, "step_id": step.step_id}).scalar() or 0
    members = (
        "SELECT recipient_id FROM audience_member WHERE audience_id = :audience_id AND recipient_id > :last "
        "ORDER BY recipient_id LIMIT :limit"
    )
    statement = sa.text(
        f"SELECT id, address, time_zone FROM recipient WHERE id {any_of(connection, members)} ORDER BY id"
    )
    values = {"audience_id": audience_id, "last": last, "limit": limit}
    return [Member(*row) for row in connection.execute(statement, values)]


def awaiting_follow_up(
    connection: sa.Connection, campaign_id: int, step_id: int, *, after: int, limit: int = STEP
) -> list[AcceptedTouch]:
    """Return accepted touches of a step whose recipients' next email is not planned, in order of ids."""
    statement = sa.text(
        "SELECT accepted.id, accepted.recipient_id, recipient.address, recipient.time_zone, accepted.settled_at, "
        "accepted.due_at FROM (SELECT id, recipient_id, settled_at, due_at FROM touch WHERE campaign_id = :campaign_id "
        "AND step_id = :step_id AND follow_up AND state = 'accepted' AND id > :after ORDER BY id LIMIT :limit) "
        "AS accepted CROSS JOIN recipient WHERE recipient.id = accepted.recipient_id ORDER BY accepted.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("recipient_id", sa.Integer()),
        sa.column("address", sa.Text()),
        sa.column("time_zone", sa.Text()),
        sa.column("settled_at", UtcDateTime()),
        sa.column("due_at", UtcDateTime()),
    )
    values = {"campaign_id": campaign_id, "step_id": step_id, "after": after, "limit": limit}
    return [AcceptedTouch(*row) for row in connection.execute(statement, values)]


def any_follow_up(connection: sa.Connection, campaign_id: int) -> bool:
    """Return whether anyone accepted an email of a campaign and the next one is not planned."""
    statement = sa.text(
        "SELECT 1 FROM touch WHERE campaign_id = :campaign_id AND follow_up AND state = 'accepted' LIMIT 1"
    )
    return connection.execute(statement, {"campaign_id": campaign_id}).first() is not None


def take_follow_ups(connection: sa.Connection, touch_ids: Sequence[int]) -> set[int]:
    """Note that the next emails of accepted touches are planned. Returns those that nobody noted before."""
    fence, parameters = locked_batch(connection, touch_ids, "state, follow_up")
    statement = sa.text(
        f"{fence} UPDATE touch SET follow_up = false FROM mine WHERE touch.id = mine.id AND mine.follow_up "
        "AND mine.state = 'accepted' RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters).scalars())


def plan_touches(connection: sa.Connection, step: PlannedStep, touches: Sequence[NewTouch], now: datetime) -> int:
    """Plan touches of a step; those of suppressed recipients end as such. Returns how many there were not before."""
    dialect = connection.dialect.name
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "due_at": UtcDateTime(), "hashed": sa.Text()}
    rows = [
        {"id": touch.recipient_id, "due_at": sql_instant(touch.due_at, dialect), "hashed": touch.hashed}
        for touch in touches
    ]
    item, parameters = json_rows(connection, "new", columns, rows)
    recipients = (
        f"SELECT id, address, domain FROM recipient WHERE id {any_of(connection, f'SELECT new.id FROM {item}')}"
    )
    # MATERIALIZED: one lookup of the suppression for each recipient. CROSS JOIN: SQLite keeps this order, and reads the
    # parameter once instead of once for each recipient.
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim, settled_at, follow_up) "
        f"WITH found AS MATERIALIZED (SELECT new.id, new.due_at, {suppressed_sql('new.hashed')} AS suppressed "
        f"FROM campaign CROSS JOIN {item} CROSS JOIN ({recipients}) AS recipient "
        "WHERE campaign.id = :campaign_id AND recipient.id = new.id) "
        "SELECT :campaign_id, :step_id, found.id, CASE WHEN found.suppressed THEN 'suppressed' ELSE 'planned' END, "
        "found.due_at, 0, CASE WHEN found.suppressed THEN :now END, :follow_up FROM found "
        "WHERE true ORDER BY found.id ON CONFLICT (campaign_id, step_id, recipient_id) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(insert, {**step._asdict(), "now": now, **parameters}).rowcount
