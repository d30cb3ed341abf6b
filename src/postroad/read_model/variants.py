"""The messages of one variant in one state or with one outcome, a page at a time."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from postroad.read_model.campaigns import step_ids
from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, encode_cursor, to_page
from postroad.store.ledger import TouchState
from postroad.store.step_page import touch_ids_with_outcome, touch_variants_in_state
from postroad.store.touch_lookup import FoundTouch, touches_by_ids
from postroad.store.variant import VariantOutcome

WINDOW: Final = 5_000
"""Messages of all variants that one page reads, at most. A page may have fewer rows than asked for, and a next one."""


def variant_touches(
    connection: sa.Connection,
    name: str,
    *,
    step: str,
    variant: str,
    state: TouchState,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[FoundTouch]:
    """Return the messages of one variant in a state, in the order of their ids.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.
        step: Name of the step.
        variant: Name of the variant.
        state: State of the messages.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page, at most.

    Returns:
        The page. Where other variants have most messages, it may be empty and have a next one.

    Raises:
        StateError: There is no such campaign or step.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    [step_id] = step_ids(connection, name, step, only_emails=True)
    after_id = decode_cursor(after, int, 0)
    read = touch_variants_in_state(connection, step_id, state, after=after_id, limit=WINDOW)
    found = [id_ for id_, its in read if its == variant]
    shown = found[:limit]
    last = shown[-1] if len(found) > limit else read[-1][0] if len(read) == WINDOW else None
    rows = {row.id: row for row in touches_by_ids(connection, shown)} if shown else {}
    listed = [rows[id_] for id_ in shown if id_ in rows]
    return Page(rows=listed, next=None if last is None else encode_cursor(last))


def outcome_touches(
    connection: sa.Connection,
    name: str,
    *,
    step: str,
    variant: str,
    outcome: VariantOutcome,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[FoundTouch]:
    """Return the messages of one variant with an outcome, in the order of their ids.

    Args:
        connection: A connection in a transaction.
        name: Name of the campaign.
        step: Name of the step.
        variant: Name of the variant.
        outcome: What the recipients did.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        StateError: There is no such campaign or step.
        UsageError: The cursor is not one of this list.
    """
    limit = checked_limit(limit)
    [step_id] = step_ids(connection, name, step, only_emails=True)
    after_id = decode_cursor(after, int, 0)
    ids = touch_ids_with_outcome(connection, step_id, variant, outcome, after=after_id, limit=limit + 1)
    page = to_page(ids, limit, lambda id_: id_)
    return Page(rows=touches_by_ids(connection, page.rows) if page.rows else [], next=page.next)
