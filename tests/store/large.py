"""Ledgers of many touches, made by the database itself: a million rows take seconds."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.store.ledger import TouchState
from tests.store.rows import add_campaign

DUE = "2026-05-04 08:30:00.000000"


def series(connection: sa.Connection, first: int, last: int) -> str:
    """Return a FROM item `s` whose column `n` counts from first to last."""
    if connection.dialect.name == "postgresql":
        return f"generate_series({first}, {last}) AS s(n)"
    counted = f"SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}"
    return f"(WITH RECURSIVE s(n) AS ({counted}) SELECT n FROM s WHERE n <= {last}) AS s"


def add_recipients(connection: sa.Connection, number: int) -> None:
    """Have recipients with the ids from 1 to number, in 97 domains."""
    known = int(connection.execute(sa.text("SELECT count(*) FROM recipient")).scalar_one())
    if known < number:
        connection.execute(
            sa.text(
                "INSERT INTO recipient (address, domain, attributes, created_at) "
                "SELECT 'r' || n || '@d' || (n % 97) || '.example', 'd' || (n % 97) || '.example', '{}', "
                f"'{DUE}' FROM {series(connection, known + 1, number)}"
            )
        )


def add_touches(
    connection: sa.Connection,
    campaign_id: int,
    step_id: int,
    number: int,
    state: TouchState,
    *,
    follow_up: bool = False,
) -> None:
    """Add one touch for each of so many recipients."""
    settled = f"'{DUE}'" if state.ended else "NULL"
    connection.execute(
        sa.text(
            "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim, settled_at, follow_up) "
            f"SELECT {campaign_id}, {step_id}, n, '{state}', '{DUE}', 0, {settled}, {str(follow_up).lower()} "
            f"FROM {series(connection, 1, number)}"
        )
    )


def add_large_campaign(connection: sa.Connection, number: int, state: TouchState) -> tuple[int, list[int]]:
    """Add a running campaign of two emails, one touch of the first for each recipient. Returns its id and steps."""
    add_recipients(connection, number)
    campaign_id, step_ids = add_campaign(connection, steps=({}, {}))
    add_touches(connection, campaign_id, step_ids[0], number, state, follow_up=True)
    return campaign_id, step_ids
