"""What a pass looks for is found by an index, and costs the same in a larger campaign."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import sqlalchemy as sa

from postroad.store.engine import write
from postroad.store.enrolment import any_active, enrolments_by_step
from postroad.store.enrolments.changes import EnrolmentMove, Place, exit_suppressed, move
from postroad.store.enrolments.pending import (
    READ,
    accepted_enrolments,
    any_failed,
    due_enrolments,
    enrolment_page,
    failed_touches,
    last_enrolled,
)
from postroad.store.ledger import TouchState
from tests.store.effort import effort_of
from tests.store.large import DUE, add_recipients, add_touches, series
from tests.store.rows import NOW, add_campaign

SMALL, LARGE = 1_000, 20_000

READS: dict[str, Callable[[sa.Connection, int, int], object]] = {
    "due": lambda connection, campaign, _: due_enrolments(connection, campaign, NOW, limit=50),
    "accepted": lambda connection, campaign, step: accepted_enrolments(connection, campaign, step, 0, limit=50),
    "failed": lambda connection, campaign, _: failed_touches(connection, campaign, 0, limit=50),
    "any failed": lambda connection, campaign, _: any_failed(connection, campaign),
    "any active": lambda connection, campaign, _: any_active(connection, campaign),
    "counts": lambda connection, campaign, _: enrolments_by_step(connection, campaign),
    "page": lambda connection, campaign, _: enrolment_page(connection, campaign, after=100, limit=50),
    "last": lambda connection, campaign, _: last_enrolled(connection, campaign),
    "one recipient": lambda connection, _campaign, _step: exit_suppressed(connection, 7, NOW),
}

PASSES: dict[str, Callable[[sa.Connection, int, int], Sequence[object]]] = {
    "due": lambda connection, campaign, _: due_enrolments(connection, campaign, NOW, limit=READ),
    "accepted": lambda connection, campaign, step: accepted_enrolments(connection, campaign, step, 0, limit=READ),
    "failed": lambda connection, campaign, _: failed_touches(connection, campaign, 0, limit=READ),
}


def add_journey(connection: sa.Connection, number: int, state: TouchState, due_at: str | None) -> tuple[int, int]:
    """Add a campaign with one enrolment and one touch of its step for each of so many recipients."""
    add_recipients(connection, number)
    campaign, [step] = add_campaign(connection)
    due = f"'{due_at}'" if due_at else "NULL"
    connection.execute(
        sa.text(
            "INSERT INTO enrolment (campaign_id, recipient_id, state, step_id, entered_at, since, due_at) "
            f"SELECT {campaign}, n, 'active', {step}, '{DUE}', '{DUE}', CAST({due} AS "
            f"{'TIMESTAMPTZ' if connection.dialect.name == 'postgresql' else 'TEXT'}) "
            f"FROM {series(connection, 1, number)}"
        )
    )
    add_touches(connection, campaign, step, number, state, follow_up=True)
    connection.execute(sa.text(f"UPDATE touch SET enrolled = true WHERE campaign_id = {campaign}"))
    return campaign, step


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_a_read_costs_the_same_in_a_larger_campaign(engine: sa.Engine, kind: str, busy: bool) -> None:
    efforts = []
    for number in (SMALL, LARGE):
        with write(engine) as connection:
            state = TouchState.PLANNED
            if busy:
                state = TouchState.BOUNCED if "failed" in kind else TouchState.ACCEPTED
            campaign, step = add_journey(connection, number, state, DUE if busy else None)
        with write(engine) as connection, effort_of(connection) as effort:
            READS[kind](connection, campaign, step)
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)


@pytest.mark.parametrize("kind", ["due", "accepted", "failed"])
def test_a_page_of_a_pass_is_not_joined_to_a_whole_table(engine: sa.Engine, kind: str) -> None:
    read = PASSES[kind]
    efforts = []
    for number in (2 * READ, 20 * READ):
        with write(engine) as connection:
            state = TouchState.BOUNCED if kind == "failed" else TouchState.ACCEPTED
            campaign, step = add_journey(connection, number, state, DUE)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
        with write(engine) as connection, effort_of(connection) as effort:
            assert len(read(connection, campaign, step)) == READ
        efforts.append(effort.count)
    # On PostgreSQL, rows: a few for each row of the page, of which one is of the smaller campaign.
    assert efforts[1] <= max(1.3 * efforts[0], 6 * READ)


def test_a_move_reads_only_the_enrolments_that_it_moves(engine: sa.Engine) -> None:
    efforts = []
    for number in (SMALL, LARGE):
        with write(engine) as connection:
            campaign, step = add_journey(connection, number, TouchState.PLANNED, DUE)
            due = due_enrolments(connection, campaign, NOW, limit=50)
        with write(engine) as connection, effort_of(connection) as effort:
            moves = [EnrolmentMove([one.id for one in due], step, Place(step, due_at=NOW))]
            assert move(connection, moves, NOW) == {one.id for one in due}
        efforts.append(effort.count)
    assert efforts[1] <= max(1.3 * efforts[0], efforts[0] + 150)
