"""Lists the touches of a campaign that overflow gave to other senders, and their states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import Struct

from postroad.store.bulk import lookup_join
from postroad.store.campaign import Step, steps_of
from postroad.store.keyset import keyset_sql
from postroad.store.ledger import TouchState
from postroad.store.types import UtcDateTime

ALL_ROWS = 2**62


class Moved(Struct, frozen=True, kw_only=True):
    """Touches of one step that went from one sender to another for one reason. ``states``: the number in each state."""

    step: str
    from_sender: str
    sender: str
    why: str
    first_at: datetime
    last_at: datetime
    states: Counter[TouchState]


class MovedTouch(NamedTuple):
    """A touch that went to another sender. ``id``: of the move."""

    id: int
    touch_id: int
    address: str
    state: TouchState
    at: datetime


class SenderChange(NamedTuple):
    """From which sender to which one touches of a step went, and why."""

    step_id: int
    from_sender: str
    sender: str
    why: str


_MOVED_COLUMNS: tuple[sa.ColumnClause[Any], ...] = (
    *(sa.column(name, sa.Text()) for name in ("from_sender", "sender", "why", "state")),
    sa.column("n", sa.Integer()),
    *(sa.column(name, UtcDateTime()) for name in ("first_at", "last_at")),
)


def moved(connection: sa.Connection, campaign_id: int, *, newest: int = ALL_ROWS) -> list[Moved]:
    """Return the touches that went to other senders, in order of the time of the first.

    Args:
        connection: A connection in a transaction.
        campaign_id: The campaign.
        newest: Only so many touches of each step are counted, those that went last.

    Returns:
        The touches, by step, senders and reason.
    """
    found = [each for step in steps_of(connection, campaign_id) for each in _moved_of_step(connection, step, newest)]
    return sorted(found, key=lambda each: each.first_at)


def _moved_of_step(connection: sa.Connection, step: Step, newest: int) -> Sequence[Moved]:
    statement = sa.text(
        "SELECT given_by.name, given_to.name, moves.why, moves.state, moves.n, moves.first_at, moves.last_at FROM "
        "(SELECT move.from_sender_id, move.sender_id, move.why, touch.state, count(*) AS n, min(move.at) AS first_at, "
        "max(move.at) AS last_at FROM (SELECT touch_id, from_sender_id, sender_id, why, at FROM overflow "
        "WHERE step_id = :step_id ORDER BY id DESC LIMIT :newest) AS move "
        f"{lookup_join(connection, 'touch', 'touch.id = move.touch_id')} "
        "GROUP BY move.from_sender_id, move.sender_id, move.why, touch.state) AS moves "
        "JOIN sender AS given_by ON given_by.id = moves.from_sender_id "
        "JOIN sender AS given_to ON given_to.id = moves.sender_id"
    ).columns(*_MOVED_COLUMNS)
    found: dict[tuple[str, str, str], Moved] = {}
    for *key, state, count, first, last in connection.execute(statement, {"step_id": step.id, "newest": newest}):
        from_sender, sender, why = key
        before = found.get((from_sender, sender, why))
        found[from_sender, sender, why] = Moved(
            step=step.name,
            from_sender=from_sender,
            sender=sender,
            why=why,
            first_at=min(first, before.first_at) if before else first,
            last_at=max(last, before.last_at) if before else last,
            states=Counter({TouchState(state): count}) + (before.states if before else Counter()),
        )
    return list(found.values())


def moved_page(connection: sa.Connection, move: SenderChange, *, before: int, limit: int) -> list[MovedTouch]:
    """Return the touches of a move whose ids are smaller than ``before``, the last one first."""
    names = sa.text("SELECT name, id FROM sender WHERE name IN (:from_sender, :sender)")
    senders = {row.name: row.id for row in connection.execute(names, move._asdict())}
    key = ("step_id", "from_sender_id", "sender_id", "why")
    where, order_by = keyset_sql(connection, equal=key, key=("id",), descending=True)
    statement = sa.text(
        "SELECT move.id, move.touch_id, recipient.address, touch.state, move.at FROM "
        f"(SELECT id, touch_id, at FROM overflow WHERE {where} ORDER BY {order_by} LIMIT :limit) AS move "
        f"{lookup_join(connection, 'touch', 'touch.id = move.touch_id')} "
        f"{lookup_join(connection, 'recipient', 'recipient.id = touch.recipient_id')} ORDER BY move.id DESC"
    ).columns(
        *(sa.column(name, sa.Integer()) for name in ("id", "touch_id")),
        *(sa.column(name, sa.Text()) for name in ("address", "state")),
        sa.column("at", UtcDateTime()),
    )
    values = {
        "step_id": move.step_id,
        "from_sender_id": senders.get(move.from_sender, 0),
        "sender_id": senders.get(move.sender, 0),
        "why": move.why,
        "after_id": before,
        "limit": limit,
    }
    return [MovedTouch(*row)._replace(state=TouchState(row.state)) for row in connection.execute(statement, values)]
