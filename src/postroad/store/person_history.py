"""Reads what the database has of a person: imports, suppressions, enrolments, events, deleted messages.

Every statement follows an index from the person, whatever the size of the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlmodel import Session, col, select

from postroad.store.bulk import any_of, id_rows, json_rows
from postroad.store.enrolment import EnrolmentState
from postroad.store.recipient import Recipient
from postroad.store.recipient_event import KnownEvent
from postroad.store.suppression import LiftedSuppression, Suppression
from postroad.store.types import JSON_OBJECT, UtcDateTime


class Membership(NamedTuple):
    """A person in an audience, by the last import that contained the person. ``joined_at``: by the first import."""

    audience_id: int
    audience: str
    path: str
    started_at: datetime
    finished_at: datetime | None
    rows: int
    joined_at: datetime | None


class KnownEnrolment(NamedTuple):
    """A person's way through one campaign. ``step``: where it is or ended. ``since``: since when, or when it ended.

    ``entry``: the number of the person's entry.
    """

    campaign: str
    step: str
    state: EnrolmentState
    entered_at: datetime
    since: datetime
    due_at: datetime | None
    why: str | None
    goal_at: datetime | None
    entry: int = 1


class EmptiedCampaign(NamedTuple):
    """A campaign whose touches were deleted after their retention."""

    name: str
    emptied_at: datetime


def recipient_of_address(connection: sa.Connection, address: str) -> Recipient | None:
    """Return the recipient with a normalised address, or None."""
    session = Session(connection)
    recipient = session.exec(select(Recipient).where(Recipient.address == address)).one_or_none()
    session.expunge_all()
    return recipient


def recipient_of_past_touch(connection: sa.Connection, touch_id: int) -> tuple[str, EmptiedCampaign | None] | None:
    """Return the address of a touch that was deleted after its retention, and its campaign. None: it is unknown."""
    statement = sa.text(
        "SELECT recipient.address, campaign.name, campaign.emptied_at FROM past_touch "
        "JOIN recipient ON recipient.id = past_touch.recipient_id "
        "JOIN campaign ON campaign.id = past_touch.campaign_id WHERE past_touch.id = :id"
    ).columns(sa.column("address", sa.Text()), sa.column("name", sa.Text()), sa.column("emptied_at", UtcDateTime()))
    row = connection.execute(statement, {"id": touch_id}).one_or_none()
    if row is None:
        return None
    return row.address, EmptiedCampaign(row.name, row.emptied_at) if row.emptied_at is not None else None


def known_addresses(connection: sa.Connection, addresses: Sequence[str]) -> list[str]:
    """Return which of these addresses are recipients, sorted."""
    rows = [{"address": address} for address in addresses]
    item, parameters = json_rows(connection, "asked", {"address": sa.Text()}, rows)
    known = any_of(connection, f"SELECT asked.address FROM {item}")
    statement = sa.text(f"SELECT address FROM recipient WHERE address {known}")
    return sorted(connection.execute(statement, parameters).scalars())


def memberships(connection: sa.Connection, recipient_id: int) -> list[Membership]:
    """Return the audiences of a recipient, in order of their imports."""
    # By both columns of the key: an audience has millions of members, and there are few audiences.
    audiences = list(connection.execute(sa.text("SELECT id FROM audience")).scalars())
    item, parameters = id_rows(connection, audiences)
    statement = sa.text(
        "SELECT audience.id, audience.name, audience_import.path, audience_import.started_at, "
        "audience_import.finished_at, audience_import.rows_total, audience_member.joined_at FROM audience_member "
        "JOIN audience ON audience.id = audience_member.audience_id "
        "JOIN audience_import ON audience_import.id = audience_member.import_id "
        f"WHERE audience_member.audience_id {any_of(connection, f'SELECT batch.id FROM {item}')} "
        "AND audience_member.recipient_id = :recipient_id ORDER BY audience_import.started_at, audience.id"
    ).columns(
        sa.column("id", sa.Integer()),
        sa.column("name", sa.Text()),
        sa.column("path", sa.Text()),
        sa.column("started_at", UtcDateTime()),
        sa.column("finished_at", UtcDateTime()),
        sa.column("rows_total", sa.Integer()),
        sa.column("joined_at", UtcDateTime()),
    )
    return [Membership(*row) for row in connection.execute(statement, {"recipient_id": recipient_id, **parameters})]


def enrolments_of(connection: sa.Connection, recipient_id: int, campaign_id: int | None = None) -> list[KnownEnrolment]:
    """Return the enrolments of a recipient, in order of their begin. ``campaign_id`` None: in all campaigns."""
    # By both columns of the key, as the memberships: an index by recipient has active enrolments only.
    every = connection.execute(sa.text("SELECT id FROM campaign")).scalars()
    item, parameters = id_rows(connection, list(every) if campaign_id is None else [campaign_id])
    statement = sa.text(
        "SELECT campaign.name, step.name AS step, enrolment.state, enrolment.entered_at, enrolment.since, "
        "enrolment.due_at, enrolment.why, enrolment.goal_at, enrolment.entry FROM enrolment "
        "JOIN campaign ON campaign.id = enrolment.campaign_id JOIN step ON step.id = enrolment.step_id "
        f"WHERE enrolment.campaign_id {any_of(connection, f'SELECT batch.id FROM {item}')} "
        "AND enrolment.recipient_id = :recipient_id ORDER BY enrolment.entered_at, enrolment.id"
    ).columns(
        *(sa.column(name, sa.Text()) for name in ("name", "step", "state")),
        *(sa.column(name, UtcDateTime()) for name in ("entered_at", "since", "due_at")),
        sa.column("why", sa.Text()),
        sa.column("goal_at", UtcDateTime()),
        sa.column("entry", sa.Integer()),
    )
    rows = connection.execute(statement, {"recipient_id": recipient_id, **parameters})
    return [KnownEnrolment(row[0], row[1], EnrolmentState(row[2]), *row[3:]) for row in rows]


def newest_events_of_recipient(connection: sa.Connection, recipient_id: int, limit: int) -> list[KnownEvent]:
    """Return what a recipient did, the newest events, in order of time."""
    # Sorted here: for an ORDER BY with a LIMIT, a database may read the events of all recipients in order of time.
    statement = sa.text("SELECT name, at, key, fields FROM recipient_event WHERE recipient_id = :id").columns(
        sa.column("name", sa.Text()),
        sa.column("at", UtcDateTime()),
        sa.column("key", sa.Text()),
        sa.column("fields", JSON_OBJECT),
    )
    rows = [KnownEvent(*row) for row in connection.execute(statement, {"id": recipient_id})]
    return sorted(rows, key=lambda event: (event.at, event.name))[-limit:]


def emptied_campaigns(connection: sa.Connection, audience_ids: Sequence[int]) -> list[EmptiedCampaign]:
    """Return the campaigns of these audiences whose touches were deleted after their retention."""
    statement = (
        sa.text(
            "SELECT name, emptied_at FROM campaign WHERE emptied_at IS NOT NULL AND audience_id IN :ids "
            "ORDER BY emptied_at"
        )
        .bindparams(sa.bindparam("ids", list(audience_ids), expanding=True))
        .columns(sa.column("name", sa.Text()), sa.column("emptied_at", UtcDateTime()))
    )
    return [EmptiedCampaign(*row) for row in connection.execute(statement)]


def suppressions_with_keys(
    connection: sa.Connection, keys: Sequence[str]
) -> tuple[list[Suppression], list[LiftedSuppression]]:
    """Return the suppressions of these addresses, domains and hashes, and the lifted ones, in order of time."""
    session = Session(connection)
    held = select(Suppression).where(col(Suppression.address).in_(keys)).order_by(col(Suppression.created_at))
    lifted = select(LiftedSuppression).where(col(LiftedSuppression.address).in_(keys))
    found = list(session.exec(held)), list(session.exec(lifted.order_by(col(LiftedSuppression.lifted_at))))
    session.expunge_all()
    return found
