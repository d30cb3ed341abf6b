"""Inserts the touches of messages that a program requests, one at a time."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from postroad.store.ledger import TouchState
from postroad.store.suppression import suppressed_sql
from postroad.store.types import UtcDateTime


class RequestedTouch(NamedTuple):
    """The touch of a request, to insert. ``hashed``: hash of the address, by which a suppression may be stored."""

    campaign_id: int
    step_id: int
    recipient_id: int
    request_id: int
    hashed: str


class InsertedTouch(NamedTuple):
    """An inserted touch: ``planned``, or ``suppressed``."""

    id: int
    state: TouchState


def insert_touch(connection: sa.Connection, touch: RequestedTouch, now: datetime) -> InsertedTouch:
    """Insert the touch of a request, due now, or ``suppressed`` if its recipient is; and record it in the request."""
    insert = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, request_id, state, due_at, claim, settled_at) "
        "SELECT :campaign_id, :step_id, found.id, :request_id, "
        f"CASE WHEN found.suppressed THEN '{TouchState.SUPPRESSED}' ELSE '{TouchState.PLANNED}' END, :now, 0, "
        "CASE WHEN found.suppressed THEN :now END FROM (SELECT recipient.id, "
        f"{suppressed_sql(':hashed', request=':request_id')} AS suppressed FROM campaign CROSS JOIN recipient "
        "WHERE campaign.id = :campaign_id AND recipient.id = :recipient_id) AS found RETURNING id, state"
    ).bindparams(
        sa.bindparam("now", type_=UtcDateTime()),
        sa.bindparam("hashed", type_=sa.Text()),
        *(sa.bindparam(name, type_=sa.BigInteger()) for name in ("campaign_id", "step_id", "request_id")),
    )
    row = connection.execute(insert, {**touch._asdict(), "now": now}).one()
    noted = sa.text("UPDATE message_request SET touch_id = :touch_id, state = :state WHERE id = :id")
    connection.execute(noted, {"touch_id": row.id, "state": row.state, "id": touch.request_id})
    return InsertedTouch(row.id, TouchState(row.state))
