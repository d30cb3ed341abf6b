"""The messages that went from one sender to another because of its caps, a page at a time."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from postroad.read_model.campaigns import step_ids
from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, to_page
from postroad.store.keyset import LAST_ID
from postroad.store.overflow import MovedTouch, SenderChange, moved_page


class NamedMove(NamedTuple):
    """From which sender to which one messages of a step went, and why."""

    step: str
    from_sender: str
    sender: str
    why: str


def moved_touches(
    connection: sa.Connection, name: str, move: NamedMove, *, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[MovedTouch]:
    """Return the messages of a move, the last one first.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.
        move: The step, the senders and the reason.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: There is no such campaign or step.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    [step_id] = step_ids(connection, name, move.step, only_emails=True)
    of = SenderChange(step_id, move.from_sender, move.sender, move.why)
    rows = moved_page(connection, of, before=decode_cursor(after, int, LAST_ID), limit=limit + 1)
    return to_page(rows, limit, lambda row: row.id)
