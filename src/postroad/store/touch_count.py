"""Number of touches of each step in each state. Triggers maintain it, so that a query need not read the touches.

A trigger counts every change of a state, in the same transaction. Deleting a touch does not change the counts, so that
the results of a campaign are known after its touches are deleted.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.ledger import IN_PROGRESS, TouchState
from postroad.store.touches.transitions import states_sql
from postroad.store.types import StoredRow


class TouchCount(StoredRow, table=True):
    """A part of the number of touches of one step in one state: the number is the sum of all slots.

    ``slot``: on PostgreSQL the process id of the connection that counted, so that no transaction waits for the counts
    of another one; 0 on SQLite, and for slots that were merged.
    """

    __tablename__ = "touch_count"

    step_id: int = Field(primary_key=True, sa_type=sa.BigInteger, sa_column_kwargs={"autoincrement": False})
    state: str = Field(primary_key=True, sa_type=sa.String(24))
    slot: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    touches: int = Field(sa_type=sa.BigInteger)


def counts_by_step(connection: sa.Connection, campaign_id: int) -> dict[int, dict[TouchState, int]]:
    """Return the number of touches in each state, by step. States without touches are missing."""
    statement = sa.text(
        "SELECT touch_count.step_id, touch_count.state, sum(touch_count.touches) AS n FROM step "
        "JOIN touch_count ON touch_count.step_id = step.id WHERE step.campaign_id = :id "
        "GROUP BY touch_count.step_id, touch_count.state HAVING sum(touch_count.touches) <> 0"
    )
    counts: dict[int, dict[TouchState, int]] = {}
    for step_id, state, n in connection.execute(statement, {"id": campaign_id}):
        counts.setdefault(step_id, {})[TouchState(state)] = int(n)
    return counts


def count_in_progress(connection: sa.Connection, *, seeds: bool) -> int:
    """Return how many touches of running and paused campaigns are queued, deferred or on the wire.

    ``seeds``: of campaigns to seed lists alone, or of all others alone.
    """
    statement = sa.text(
        "SELECT COALESCE(sum(touch_count.touches), 0) FROM campaign JOIN step ON step.campaign_id = campaign.id "
        "JOIN touch_count ON touch_count.step_id = step.id "
        f"WHERE touch_count.state {states_sql(IN_PROGRESS)} AND campaign.state IN ('running', 'paused') "
        "AND campaign.warmup = :seeds"
    )
    return int(connection.execute(statement, {"seeds": seeds}).scalar_one())


def fold_counts(connection: sa.Connection) -> int:
    """Add the slots of closed connections to slot 0. Returns the number of deleted rows, which is 0 on SQLite."""
    if connection.dialect.name == "sqlite":
        return 0
    gone = sa.text(
        "DELETE FROM touch_count WHERE slot <> 0 "
        "AND NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pg_stat_activity.pid = touch_count.slot) "
        "RETURNING step_id, state, touches"
    )
    rows = connection.execute(gone).all()
    add = sa.text(
        "INSERT INTO touch_count AS counted (step_id, state, slot, touches) VALUES (:step_id, :state, 0, :touches) "
        "ON CONFLICT (step_id, state, slot) DO UPDATE SET touches = counted.touches + excluded.touches"
    )
    for row in sorted(rows):  # In a fixed order, so that two transactions do not deadlock.
        connection.execute(add, row._asdict())
    return len(rows)
