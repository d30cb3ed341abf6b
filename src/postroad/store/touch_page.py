"""Reads the touches of a step, a page at a time, in the order of their unique index.

The index has the order and the start of a page, so both databases read only the page, whatever statistics they have.
With ``ORDER BY id``, SQLite reads and sorts the whole campaign for every page, and so does PostgreSQL before its first
ANALYZE.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa

from postroad.store.engine import read

PAGE = 1_000


class TouchKey(NamedTuple):
    """One touch: its recipient, its id, its state, its request (0: its campaign planned it), and its variant."""

    recipient_id: int
    id: int
    state: str
    request_id: int
    variant: str | None


def touch_page(
    connection: sa.Connection,
    campaign_id: int,
    step_id: int,
    *,
    after: int,
    after_request: int = 0,
    limit: int = PAGE,
) -> list[TouchKey]:
    """Return the next touches of a step in the order of their recipients and requests; empty at the end.

    ``after``, ``after_request``: recipient and request of the last touch of the page before.
    """
    statement = sa.text(
        "SELECT recipient_id, id, state, request_id, variant FROM touch WHERE campaign_id = :campaign_id "
        "AND step_id = :step_id AND (recipient_id, request_id) > (:after, :after_request) "
        "ORDER BY recipient_id, request_id LIMIT :limit"
    )
    values = {
        "campaign_id": campaign_id,
        "step_id": step_id,
        "after": after,
        "after_request": after_request,
        "limit": limit,
    }
    return [TouchKey(*row) for row in connection.execute(statement, values)]


def touch_pages(engine: sa.Engine, campaign_id: int, *, step_id: int | None = None) -> Iterator[list[TouchKey]]:
    """Yield every touch of a campaign, step by step, or those of one step. Each page has its own transaction."""
    with read(engine) as connection:
        statement = sa.text("SELECT id FROM step WHERE campaign_id = :id AND kind = 'email' ORDER BY position")
        step_ids = list(connection.execute(statement, {"id": campaign_id}).scalars())
    for email in step_ids if step_id is None else [step_id]:
        after = after_request = 0
        while True:
            with read(engine) as connection:
                page = touch_page(connection, campaign_id, email, after=after, after_request=after_request)
            if not page:
                break
            yield page
            after, after_request = page[-1].recipient_id, page[-1].request_id
