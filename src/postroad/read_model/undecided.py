"""Messages of which a person decides what becomes: dead and unknown ones, by cause.

Dead messages of a cancelled campaign are never sent again, so they are not among them.
"""

from __future__ import annotations

import sqlalchemy as sa
from msgspec import Struct

from postroad.read_model.page import DEFAULT_LIMIT, Page, checked_limit, decode_cursor, encode_cursor
from postroad.store.bulk import found_sql
from postroad.store.keyset import keyset_sql
from postroad.store.ledger import UNDECIDED, TouchState
from postroad.store.touch_lookup import FoundTouch, touches_by_ids

_TO_DECIDE = f"(touch.state = '{TouchState.UNKNOWN}' OR campaign.state <> 'cancelled')"
_UNDECIDED = "state IN ('dead', 'unknown')"  # as the index has it


class CauseCount(Struct, frozen=True, kw_only=True):
    """Number of messages in one state for one cause. ``cause``: empty if it is not recorded."""

    state: TouchState
    cause: str
    touches: int


def undecided_counts(connection: sa.Connection) -> list[CauseCount]:
    """Return the number of undecided messages by state and cause, the largest first."""
    statement = sa.text(
        "SELECT touch.state, touch.cause, sum(touch.n) AS n FROM "
        f"(SELECT state, cause, campaign_id, count(*) AS n FROM touch WHERE {_UNDECIDED} "
        "GROUP BY state, cause, campaign_id) AS touch "
        f"JOIN campaign ON campaign.id = touch.campaign_id WHERE {_TO_DECIDE} GROUP BY touch.state, touch.cause"
    )
    counts = [
        CauseCount(state=TouchState(row.state), cause=row.cause, touches=int(row.n))
        for row in connection.execute(statement)
    ]
    return sorted(counts, key=lambda count: (-count.touches, count.state, count.cause))


def undecided_touches(
    connection: sa.Connection, *, state: TouchState, cause: str, after: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[FoundTouch]:
    """Return the messages of one count of `undecided_counts`, in the order of campaigns and ids.

    Args:
        connection: A connection in a transaction.
        state: Dead or unknown.
        cause: The cause; empty: those without one.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page.

    Raises:
        UsageError: The cursor is not one of this list.
        ValueError: The state is another one.
    """
    if state not in UNDECIDED:
        raise ValueError(f"{state} is decided")
    campaign_id, touch_id = decode_cursor(after, tuple[int, int], (0, 0))
    limit = checked_limit(limit)
    keys: list[tuple[int, int]] = []
    while len(keys) <= limit:
        ids = _page_ids(connection, state, cause, campaign_id, touch_id, limit + 1 - len(keys))
        keys += [(campaign_id, id_) for id_ in ids]
        values = {"state": state.value, "cause": cause, "campaign_id": campaign_id}
        following = connection.execute(_NEXT_CAMPAIGN, values).scalar()
        if following is None:
            break
        campaign_id, touch_id = following, 0
    shown = keys[:limit]
    found = {touch.id: touch for touch in touches_by_ids(connection, [id_ for _, id_ in shown])} if shown else {}
    rows_shown = [found[id_] for _, id_ in shown if id_ in found]
    return Page(rows=rows_shown, next=encode_cursor(shown[-1]) if len(keys) > limit else None)


def _page_ids(
    connection: sa.Connection, state: TouchState, cause: str, campaign_id: int, after: int, limit: int
) -> list[int]:
    where, order_by = keyset_sql(connection, equal=("state", "cause", "campaign_id"), key=("id",))
    statement = sa.text(f"SELECT id FROM touch WHERE {_UNDECIDED} AND {where} ORDER BY {order_by} LIMIT :limit")
    values = {"state": state.value, "cause": cause, "campaign_id": campaign_id, "after_id": after, "limit": limit}
    return list(connection.execute(statement, values).scalars())


_NEXT_CAMPAIGN = sa.text(
    "SELECT campaign.id FROM campaign WHERE campaign.id > :campaign_id "
    f"AND (:state = '{TouchState.UNKNOWN}' OR campaign.state <> 'cancelled') "
    "AND "
    + found_sql(
        f"touch WHERE {_UNDECIDED} AND touch.state = :state AND touch.cause = :cause "
        "AND touch.campaign_id = campaign.id"
    )
    + " ORDER BY campaign.id LIMIT 1"
).bindparams(sa.bindparam("state", type_=sa.Text()))


class UndecidedTouch(Struct, frozen=True, kw_only=True):
    """An undecided message. ``cause``: empty if it is not recorded."""

    cause: str
    touch: FoundTouch


def undecided_of_state(
    connection: sa.Connection,
    *,
    state: TouchState,
    cause: str | None = None,
    after: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[UndecidedTouch]:
    """Return the undecided messages in one state, in the order of causes, campaigns and ids.

    Args:
        connection: A connection in a transaction.
        state: Dead or unknown.
        cause: Only of this cause; empty: those without one; None: of all causes.
        after: The cursor of the page before; None: the first page.
        limit: Rows of the page.

    Returns:
        The page. The page after it may be empty.

    Raises:
        UsageError: The cursor is not one of this list.
        ValueError: The state is another one.
    """
    now, place = decode_cursor(after, tuple[str, str | None], (cause or "", None))
    rows: list[UndecidedTouch] = []
    limit = checked_limit(limit)
    while True:
        page = undecided_touches(connection, state=state, cause=now, after=place, limit=limit - len(rows))
        rows += [UndecidedTouch(cause=now, touch=touch) for touch in page.rows]
        if page.next is not None:
            return Page(rows=rows, next=encode_cursor((now, page.next)))
        following = _next_cause(connection, state, now) if cause is None else None
        if following is None:
            return Page(rows=rows)
        now, place = following, None
        if len(rows) == limit:
            return Page(rows=rows, next=encode_cursor((now, None)))


def _next_cause(connection: sa.Connection, state: TouchState, after: str) -> str | None:
    where, order_by = keyset_sql(connection, equal=("state",), key=("cause",))
    statement = sa.text(f"SELECT cause FROM touch WHERE {_UNDECIDED} AND {where} ORDER BY {order_by} LIMIT 1")
    found: str | None = connection.execute(statement, {"state": state.value, "after_cause": after}).scalar()
    return found
