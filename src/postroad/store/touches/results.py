"""Records what became of touches: from the queue's events, from returned mail, and from what a person found out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.errors import Blame
from postroad.store.bulk import any_of, found_sql, id_rows, json_rows
from postroad.store.ledger import UNDECIDED, TouchState
from postroad.store.outcome_event import insert_outcomes
from postroad.store.touches.sending import reopen_campaigns
from postroad.store.touches.transitions import Condition, TouchEvent, allowed_sql
from postroad.store.types import UtcDateTime, sql_time


class TouchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a touch on one claim: a row of ``delivery_event``, and the next state of the touch.

    ``at_ms``, ``next_ms``: milliseconds since the epoch. ``next_ms``: time of the next attempt. ``words``: see
    `postroad.store.same_words`.
    """

    uid: str
    touch_id: int
    state: TouchState
    claim: int
    at_ms: int
    attempt: int
    next_ms: int | None
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None
    blame: Blame | None
    words: str | None


def insert_events(connection: sa.Connection, results: Sequence[TouchResult]) -> None:
    """Insert a row of ``delivery_event`` for each result. Idempotent by the ``uid``.

    A result for a touch of another ledger, which uses the same queue by mistake, is skipped.
    """
    dialect = connection.dialect.name
    rows = [
        {
            **msgspec.structs.asdict(result),
            "at": _sql_time(result.at_ms, dialect),
            "next_at": _sql_time(result.next_ms, dialect),
        }
        for result in results
    ]
    columns: dict[str, TypeEngine[Any]] = {
        "uid": sa.Text(),
        "touch_id": sa.BigInteger(),
        "state": sa.Text(),
        "at": UtcDateTime(),
        "attempt": sa.Integer(),
        "reply_code": sa.Integer(),
        "enhanced_code": sa.Text(),
        "reply": sa.Text(),
        "cause": sa.Text(),
        "blame": sa.Text(),
        "next_at": UtcDateTime(),
        "words": sa.Text(),
    }
    item, parameters = json_rows(connection, "new", columns, rows)
    picks = {name: f"new.{name}" for name in columns}
    insert_outcomes(connection, picks, parameters, touch="new.touch_id", rows=item)


def apply_results(connection: sa.Connection, results: Sequence[TouchResult]) -> None:
    """Move touches to the states of their results, in order, as far as the transition table allows it."""
    _lock(connection, results)
    for batch in _one_result_per_touch(results):
        by_state: defaultdict[TouchState, list[TouchResult]] = defaultdict(list)
        for result in batch:
            by_state[result.state].append(result)
        for state, of_state in by_state.items():
            _move(connection, state, of_state)


def _lock(connection: sa.Connection, results: Sequence[TouchResult]) -> None:
    """Lock the touches of results in the order of their ids, as other statements do: one statement moves each state."""
    if connection.dialect.name == "sqlite" or not results:  # SQLite has one writer.
        return
    item, parameters = id_rows(connection, [result.touch_id for result in results])
    touches = any_of(connection, f"SELECT batch.id FROM {item}")
    lock = sa.text(f"SELECT 1 FROM touch WHERE touch.id {touches} ORDER BY touch.id FOR NO KEY UPDATE")
    connection.execute(lock, parameters)


def _one_result_per_touch(results: Sequence[TouchResult]) -> list[list[TouchResult]]:
    """Split the results into rounds with at most one result per touch, in order. Each may be of another claim."""
    if len({result.touch_id for result in results}) == len(results):
        return [list(results)]
    rounds: list[list[TouchResult]] = []
    counts: Counter[int] = Counter()
    for result in results:
        if counts[result.touch_id] == len(rounds):
            rounds.append([])
        rounds[counts[result.touch_id]].append(result)
        counts[result.touch_id] += 1
    return rounds


_CONDITIONS = {
    Condition.SAME_CLAIM: "touch.claim = new.claim",
    Condition.NOT_RETURNED: "NOT " + found_sql("bounce_effect WHERE touch_id = touch.id"),
}


def _move(connection: sa.Connection, state: TouchState, results: Sequence[TouchResult]) -> None:
    dialect = connection.dialect.name
    rows = [
        {
            "id": result.touch_id,
            "claim": result.claim,
            "reply": result.reply or result.cause,
            "cause": result.cause if state in UNDECIDED else None,
            "next_at": _sql_time(result.next_ms, dialect),
            "settled_at": _sql_time(result.at_ms, dialect) if state.ended else None,
        }
        for result in results
    ]
    columns: dict[str, TypeEngine[Any]] = {
        "id": sa.BigInteger(),
        "claim": sa.BigInteger(),
        "reply": sa.Text(),
        "cause": sa.Text(),
        "next_at": UtcDateTime(),
        "settled_at": UtcDateTime(),
    }
    item, parameters = json_rows(connection, "new", columns, rows)
    statement = sa.text(
        f"UPDATE touch SET state = '{state}', reply = COALESCE(new.reply, touch.reply), next_at = new.next_at, "
        f"settled_at = new.settled_at, cause = COALESCE(new.cause, '') FROM {item} WHERE touch.id = new.id "
        f"AND {allowed_sql(TouchEvent.RECORDED, state, conditions=_CONDITIONS)}"
    )
    connection.execute(statement, parameters)


@lru_cache(maxsize=1024)
def _sql_time(ms: int | None, dialect: str) -> str | None:
    # Jobs that were settled together share one time, which the ledger stores twice.
    return None if ms is None else sql_time(datetime.fromtimestamp(ms / 1000, UTC), dialect)


def record_returned(connection: sa.Connection, touch_id: int, state: TouchState, reply: str, now: datetime) -> bool:
    """Move a touch to the state that a returned message shows: bounced, or accepted where that was unknown.

    Returns:
        Whether the touch moved.
    """
    statement = sa.text(
        "UPDATE touch SET state = :state, settled_at = :now, next_at = NULL, reply = :reply "
        f"WHERE id = :id AND {allowed_sql(TouchEvent.RETURNED, state)}"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {"state": state.value, "now": now, "reply": reply[:500], "id": touch_id}
    return connection.execute(statement, values).rowcount == 1


def resolve_unknown(
    connection: sa.Connection, touch_id: int, state: TouchState, *, by: str, now: datetime
) -> str | None:
    """Settle a touch whose delivery is unknown, and record who did it.

    Args:
        connection: A connection in a transaction that writes.
        touch_id: The touch.
        state: What became of it: ``accepted``, ``dead``, or ``queued`` to send it again.
        by: The person who knows it.
        now: The time of the transaction.

    Returns:
        Name of the campaign of the touch; None if its state is not ``unknown``.
    """
    # Locked first: `finish_if_done` must see either all of this or nothing.
    lock = "" if connection.dialect.name == "sqlite" else "FOR UPDATE"
    its = f"SELECT id, name FROM campaign WHERE id = (SELECT campaign_id FROM touch WHERE id = :id) {lock}"
    campaign = connection.execute(sa.text(its), {"id": touch_id}).one_or_none()
    settled = sa.text(
        "UPDATE touch SET state = :state, settled_at = :settled_at, reply = :reply, cause = 'resolved' "
        f"WHERE id = :id AND {allowed_sql(TouchEvent.RESOLVED, state)} RETURNING follow_up"
    ).bindparams(sa.bindparam("settled_at", type_=UtcDateTime()))
    note = f"resolved as {state} by {by}"[:500]
    values = {"id": touch_id, "state": state.value, "settled_at": now if state.ended else None, "reply": note}
    follow_up: bool | None = connection.execute(settled, values).scalar_one_or_none()
    if campaign is None or follow_up is None:
        return None
    if not state.ended or (follow_up and state is TouchState.ACCEPTED):
        reopen_campaigns(connection, [campaign.id])  # It is sent again, or another email follows.
    event = {
        "uid": ":uid",
        "touch_id": "touch.id",
        "state": ":state",
        "at": ":at",
        "attempt": "0",
        "cause": "'resolved'",
        "reply": ":reply",
    }
    # The time distinguishes it from an earlier resolution of the same touch.
    uid = f"{touch_id}:{now.timestamp():.6f}:resolved"
    values = {"uid": uid, "id": touch_id, "state": state.value, "at": now, "reply": note}
    insert_outcomes(connection, event, values, touch=":id")
    return str(campaign.name)
