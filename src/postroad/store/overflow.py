"""Lists the touches of a campaign that overflow gave to other senders, and their states."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import aliased
from sqlmodel import col

from postroad.store.campaign import Sender, Step
from postroad.store.ledger import Overflow, Touch, TouchState


class Moved(Struct, frozen=True, kw_only=True):
    """Touches of one step that went from one sender to another for one reason. ``states``: the number in each state."""

    step: str
    from_sender: str
    sender: str
    why: str
    first_at: datetime
    last_at: datetime
    states: Counter[TouchState]


def moved(connection: sa.Connection, campaign_id: int) -> list[Moved]:
    """Return the touches that went to other senders, in order of the time of the first."""
    given_by, given_to = aliased(Sender), aliased(Sender)
    group = (col(Step.position), col(Step.name), col(given_by.name), col(given_to.name), col(Overflow.why))
    first_at, last_at = sa.func.min(col(Overflow.at)), sa.func.max(col(Overflow.at))
    statement = (
        sa.select(*group[1:], col(Touch.state), sa.func.count(), first_at, last_at)
        .join_from(Overflow, Touch, col(Touch.id) == col(Overflow.touch_id))
        .join(Step, col(Step.id) == col(Touch.step_id))
        .join(given_by, col(given_by.id) == col(Overflow.from_sender_id))
        .join(given_to, col(given_to.id) == col(Overflow.sender_id))
        .where(col(Touch.campaign_id) == campaign_id)
        .group_by(*group, col(Touch.state))
        .order_by(*group, col(Touch.state))
    )
    found: dict[tuple[str, str, str, str], Moved] = {}
    for step, from_sender, sender, why, state, count, first, last in connection.execute(statement):
        key = (step, from_sender, sender, why)
        before = found.get(key)
        found[key] = Moved(
            step=step,
            from_sender=from_sender,
            sender=sender,
            why=why,
            first_at=min(first, before.first_at) if before else first,
            last_at=max(last, before.last_at) if before else last,
            states=Counter({state: count}) + (before.states if before else Counter()),
        )
    return sorted(found.values(), key=lambda each: each.first_at)
