"""Loads a recipient with a past from the database, as conditions in plain Python read it."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from postroad.segment.person import Person, PersonEvent, PersonTouch
from postroad.store.ledger import TouchState
from postroad.store.types import JSON_OBJECT, StrEnumType, UtcDateTime

_RECIPIENT = sa.text(
    "SELECT recipient.address, recipient.time_zone, recipient.attributes, mail_domain.provider FROM recipient "
    "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain WHERE recipient.id = :id"
).columns(
    sa.column("address", sa.Text()),
    sa.column("time_zone", sa.Text()),
    sa.column("attributes", JSON_OBJECT),
    sa.column("provider", sa.Text()),
)
_MEMBERSHIPS = sa.text(
    "SELECT audience.id, audience.name, audience_member.joined_at FROM audience "
    "JOIN audience_member ON audience_member.audience_id = audience.id WHERE audience_member.recipient_id = :id"
).columns(sa.column("id", sa.BigInteger()), sa.column("name", sa.Text()), sa.column("joined_at", UtcDateTime()))
_TOUCHES = sa.text(
    "SELECT touch.id, touch.campaign_id, step.name AS step, touch.state, touch.settled_at FROM touch "
    "JOIN step ON step.id = touch.step_id WHERE touch.recipient_id = :id"
).columns(
    sa.column("id", sa.BigInteger()),
    sa.column("campaign_id", sa.BigInteger()),
    sa.column("step", sa.Text()),
    sa.column("state", StrEnumType(TouchState)),
    sa.column("settled_at", UtcDateTime()),
)
_REPLIES = sa.text(
    "SELECT touch.id, delivery_event.at FROM touch JOIN delivery_event ON delivery_event.touch_id = touch.id "
    "WHERE touch.recipient_id = :id AND delivery_event.cause = 'reply'"
).columns(sa.column("id", sa.BigInteger()), sa.column("at", UtcDateTime()))
_UNSUBSCRIBED = sa.text(
    "SELECT 1 FROM suppression WHERE address = :address AND reason = 'unsubscribe' AND audience_id IN (0, :audience_id)"
)
_EVENTS = sa.text("SELECT name, at, fields FROM recipient_event WHERE recipient_id = :id").columns(
    sa.column("name", sa.Text()), sa.column("at", UtcDateTime()), sa.column("fields", JSON_OBJECT)
)


def load_person(
    connection: sa.Connection,
    recipient_id: int,
    now: datetime,
    *,
    audience_id: int | None = None,
    campaign_id: int | None = None,
) -> Person:
    """Return a recipient as conditions see it.

    Args:
        connection: A connection that reads.
        recipient_id: The recipient, who must exist.
        now: The time of the evaluation.
        audience_id: The audience that functions refer to.
        campaign_id: The campaign that functions refer to; None: all campaigns.

    Returns:
        The recipient.
    """
    key = {"id": recipient_id}
    row = connection.execute(_RECIPIENT, key).one()
    memberships = connection.execute(_MEMBERSHIPS, key).all()
    replies: dict[int, list[datetime]] = {}
    for reply in connection.execute(_REPLIES, key):
        replies.setdefault(reply.id, []).append(reply.at)
    suppressed = connection.execute(_UNSUBSCRIBED, {"address": row.address, "audience_id": audience_id or 0}).first()
    return Person(
        now=now,
        address=row.address,
        time_zone=row.time_zone,
        provider=row.provider,
        fields=row.attributes,
        memberships={member.name: member.joined_at for member in memberships},
        unsubscribed=suppressed is not None,
        touches=tuple(
            PersonTouch(
                campaign_id=touch.campaign_id,
                step=touch.step,
                state=touch.state,
                settled_at=touch.settled_at,
                replied_at=tuple(replies.get(touch.id, ())),
            )
            for touch in connection.execute(_TOUCHES, key)
        ),
        events=tuple(
            PersonEvent(name=event.name, at=event.at, fields=event.fields) for event in connection.execute(_EVENTS, key)
        ),
        audience=next((member.name for member in memberships if member.id == audience_id), None),
        campaign_id=campaign_id,
    )
