"""Messages that went to other senders: their numbers have lists, and cost the same among those of other campaigns."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.errors import StateError
from postroad.read_model.overflow import NamedMove, moved_touches
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.overflow import moved
from tests.read_model.world import all_rows
from tests.store.effort import effort_of
from tests.store.large import DUE, add_recipients, add_touches
from tests.store.rows import add_campaign

CAPS = "the caps of news at google allow 50 of these in time"


def move_touches(connection: sa.Connection, step: int, first: int, last: int, why: str = CAPS) -> None:
    """Give the touches of a step from the n-th on to the last sender."""
    connection.execute(
        sa.text(
            "INSERT INTO overflow (touch_id, step_id, from_sender_id, sender_id, at, why) SELECT moved.id, :step, "
            "(SELECT sender_id FROM campaign WHERE id = moved.campaign_id), (SELECT max(id) FROM sender), "
            f"'{DUE}', :why FROM (SELECT id, campaign_id, row_number() OVER (ORDER BY id) AS n FROM touch "
            "WHERE step_id = :step) AS moved WHERE moved.n BETWEEN :first AND :last"
        ),
        {"step": step, "first": first, "last": last, "why": why},
    )


def test_each_number_has_a_list(engine: sa.Engine) -> None:
    with write(engine) as connection:
        add_recipients(connection, 30)
        campaign, (step, later) = add_campaign(connection, name="spring", steps=({}, {}))
        add_campaign(connection, name="other")
        for each in (step, later):
            add_touches(connection, campaign, each, 30, TouchState.ACCEPTED)
        move_touches(connection, step, 1, 12)
        move_touches(connection, step, 13, 20, "another reason")
        move_touches(connection, later, 1, 5)
        connection.execute(sa.text("UPDATE touch SET state = 'bounced' WHERE id % 2 = 0"))
    with read(engine) as connection:
        moves = moved(connection, campaign)
        assert sorted((move.step, move.why, move.states.total()) for move in moves) == [
            ("step-1", "another reason", 8),
            ("step-1", CAPS, 12),
            ("step-2", CAPS, 5),
        ]
        assert sum(move.states[TouchState.BOUNCED] for move in moves) == 12
        seen: set[int] = set()
        for move in moves:
            named = NamedMove(move.step, move.from_sender, move.sender, move.why)
            rows = all_rows(lambda after, named=named: moved_touches(connection, "spring", named, after=after, limit=3))  # type: ignore[misc]
            assert len(rows) == move.states.total()
            seen |= {row.touch_id for row in rows}
        assert len(seen) == 25
        newest = {(move.step, move.why): move.states.total() for move in moved(connection, campaign, newest=10)}
        assert newest == {("step-1", "another reason"): 8, ("step-1", CAPS): 2, ("step-2", CAPS): 5}
        nothing = NamedMove("step-1", "none", "none", CAPS)
        assert moved_touches(connection, "spring", nothing).rows == []
        with pytest.raises(StateError, match="step"):
            moved_touches(connection, "spring", nothing._replace(step="none"))


def test_a_campaign_costs_the_same_among_moves_of_others(engine: sa.Engine) -> None:
    efforts = []
    with write(engine) as connection:
        add_recipients(connection, 10_000)
        own, (step,) = add_campaign(connection, name="spring")
        other, (of_other,) = add_campaign(connection, name="other")
        add_touches(connection, own, step, 2_000, TouchState.ACCEPTED)
        add_touches(connection, other, of_other, 10_000, TouchState.ACCEPTED)
        move_touches(connection, step, 1, 500)
    for first, last in ((1, 1_000), (1_001, 10_000)):
        with write(engine) as connection:
            move_touches(connection, of_other, first, last)
            move_touches(connection, step, first // 2 + 500, last // 8 + 500)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with read(engine) as connection, effort_of(connection) as effort:
            [move] = moved(connection, own, newest=200)
            assert move.states.total() == 200
            named = NamedMove(move.step, move.from_sender, move.sender, move.why)
            page = moved_touches(connection, "spring", named)
            assert len(moved_touches(connection, "spring", named, after=page.next).rows) == 50
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)
