"""Ends touches that wait, as suppressed or cancelled, and deletes old ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from postroad.store.bulk import any_of, found_sql, id_rows, locked_touches
from postroad.store.ledger import TouchState
from postroad.store.outcome_event import insert_outcomes
from postroad.store.suppression import transactional_sql
from postroad.store.touches.transitions import Condition, TouchEvent, allowed_sql
from postroad.store.types import UtcDateTime

_EVENTS = {TouchState.SUPPRESSED: TouchEvent.SUPPRESSED, TouchState.CANCELLED: TouchEvent.CANCELLED}
_SUPPRESSED = allowed_sql(TouchEvent.SUPPRESSED, TouchState.SUPPRESSED)
_NOT_TRANSACTIONAL = f"AND NOT {transactional_sql('touch.request_id')}"
_CANCELLED = allowed_sql(TouchEvent.CANCELLED, TouchState.CANCELLED)


def suppress_touches(connection: sa.Connection, touch_ids: Sequence[int], now: datetime) -> set[int]:
    """End those of these touches that wait as ``suppressed``.

    Transactional messages do not end here: the admission decides which suppression holds for them.

    Returns:
        The touches that ended.
    """
    return _end(connection, touch_ids, TouchState.SUPPRESSED, now)


def cancel_touches(connection: sa.Connection, touch_ids: Sequence[int], now: datetime) -> set[int]:
    """End those of these touches that wait as ``cancelled``. Returns the touches that ended."""
    return _end(connection, touch_ids, TouchState.CANCELLED, now)


def drop_dead(connection: sa.Connection, touch_ids: Sequence[int], *, by: str, now: datetime) -> set[int]:
    """End those of these touches that are dead as ``cancelled``, and record who decided it.

    Args:
        connection: A connection in a transaction that writes.
        touch_ids: The touches.
        by: The person who decides that they are not sent again.
        now: The time of the transaction.

    Returns:
        The touches that ended.
    """
    note, values = f"dropped by {by}"[:500], {"now": now}
    fence, parameters = locked_touches(connection, touch_ids, "state")
    statement = sa.text(
        f"{fence} UPDATE touch SET state = '{TouchState.CANCELLED}', reply = :note, settled_at = :now FROM mine "
        f"WHERE touch.id = mine.id AND {allowed_sql(TouchEvent.DROPPED, TouchState.CANCELLED, state='mine.state')} "
        "RETURNING touch.id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    dropped = set(connection.execute(statement, {**values, "note": note, **parameters}).scalars())
    item, parameters = id_rows(connection, sorted(dropped))
    # The time distinguishes it from an earlier one of the same touch: replayed, a touch may be dead again.
    event = {
        "uid": "touch.id || :suffix",
        "touch_id": "touch.id",
        "state": "touch.state",
        "at": ":now",
        "attempt": "0",
        "cause": "'resolved'",
        "reply": ":note",
    }
    suffix = f":{now.timestamp():.6f}:dropped"
    insert_outcomes(
        connection, event, {**values, "note": note, "suffix": suffix, **parameters}, touch="batch.id", rows=item
    )
    return dropped


def _end(connection: sa.Connection, touch_ids: Sequence[int], state: TouchState, now: datetime) -> set[int]:
    # Locked in the order of ids, as the admission locks what waits for a recipient.
    fence, parameters = locked_touches(connection, touch_ids, "state")
    statement = sa.text(
        f"{fence} UPDATE touch SET state = '{state}', settled_at = :now, next_at = NULL FROM mine "
        f"WHERE touch.id = mine.id AND {allowed_sql(_EVENTS[state], state, state='mine.state')} "
        f"{_NOT_TRANSACTIONAL if state is TouchState.SUPPRESSED else ''} RETURNING touch.id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return set(connection.execute(statement, {"now": now, **parameters}).scalars())


def _lock_waiting(connection: sa.Connection, recipient_id: int) -> None:
    """Lock what waits for a recipient, in the order of ids, as the admission does. SQLite has one writer."""
    if connection.dialect.name != "sqlite":
        statement = sa.text(
            "SELECT id FROM touch WHERE recipient_id = :recipient_id AND settled_at IS NULL ORDER BY id FOR UPDATE"
        )
        connection.execute(statement, {"recipient_id": recipient_id}).all()


def suppress_touches_of(
    connection: sa.Connection, recipient_id: int, now: datetime, audience_id: int = 0, *, unsubscribed: bool = False
) -> list[int]:
    """End every touch that waits for a recipient as ``suppressed``.

    Args:
        connection: A connection in a transaction that writes.
        recipient_id: The recipient, who was suppressed.
        now: The time of the transaction.
        audience_id: Only touches of campaigns to this audience end; 0: all touches.
        unsubscribed: The recipient unsubscribed, which does not end transactional messages.

    Returns:
        The touches that ended, in order. The queue may have jobs for them.
    """
    _lock_waiting(connection, recipient_id)
    statement = sa.text(
        f"UPDATE touch SET state = '{TouchState.SUPPRESSED}', settled_at = :now, next_at = NULL "
        f"WHERE recipient_id = :recipient_id AND {_SUPPRESSED} {_NOT_TRANSACTIONAL if unsubscribed else ''} "
        "AND (:audience_id = 0 OR campaign_id IN (SELECT id FROM campaign "
        "WHERE COALESCE(permission_audience_id, audience_id) = :audience_id)) "
        "RETURNING id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {"now": now, "recipient_id": recipient_id, "audience_id": audience_id}
    return sorted(connection.execute(statement, values).scalars())


def end_sequence_of(
    connection: sa.Connection, campaign_id: int, recipient_id: int, why: str, now: datetime
) -> list[int]:
    """Cancel what a recipient would still get from a campaign.

    A step that is not planned yet gets a cancelled touch, so that it is never planned. In a journey the enrolment
    ends: see `postroad.store.enrolments.changes.exit_recipient`, which comes first.

    Returns:
        The touches that waited, in order. The queue may have jobs for them.
    """
    values = {"campaign_id": campaign_id, "recipient_id": recipient_id, "why": why, "now": now}
    # The insert comes first: it waits for a transaction that plans a step now, and the update then finds its touch.
    ahead = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim, reply, settled_at) "
        f"SELECT :campaign_id, step.id, :recipient_id, '{TouchState.CANCELLED}', :now, 0, :why, :now FROM step "
        "JOIN campaign ON campaign.id = step.campaign_id "
        "WHERE step.campaign_id = :campaign_id AND step.kind = 'email' AND campaign.journey IS NULL "
        "ORDER BY step.position "
        "ON CONFLICT (campaign_id, step_id, recipient_id, request_id) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(ahead, values)
    _lock_waiting(connection, recipient_id)
    waiting = sa.text(
        f"UPDATE touch SET state = '{TouchState.CANCELLED}', settled_at = :now, next_at = NULL, reply = :why "
        f"WHERE campaign_id = :campaign_id AND recipient_id = :recipient_id AND {_CANCELLED} RETURNING id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return sorted(connection.execute(waiting, values).scalars())


def delete_touches(connection: sa.Connection, touch_ids: Sequence[int]) -> int:
    """Delete those of these touches that ended, with all rows that belong to them.

    The caller holds the lock of their campaign, so that no touch is requeued between the SELECT and the DELETE.

    A touch with a recorded unsubscribe is kept. The id, the campaign and the recipient of a deleted touch go to
    ``past_touch``.

    Returns:
        The number of touches that were deleted.
    """
    item, parameters = id_rows(connection, touch_ids)
    not_unsubscribed = "NOT " + found_sql(
        "delivery_event WHERE delivery_event.touch_id = touch.id AND delivery_event.cause = 'unsubscribe'"
    )
    allowed = allowed_sql(TouchEvent.DELETED, conditions={Condition.NOT_UNSUBSCRIBED: not_unsubscribed})
    ended = sa.text(f"SELECT touch.id FROM {item} JOIN touch ON touch.id = batch.id WHERE {allowed}")
    item, parameters = id_rows(connection, list(connection.execute(ended, parameters).scalars()))
    old = any_of(connection, f"SELECT batch.id FROM {item}")
    keep = "INSERT INTO past_touch (id, campaign_id, recipient_id) SELECT id, campaign_id, recipient_id FROM touch"
    connection.execute(sa.text(f"{keep} WHERE id {old}"), parameters)
    for table in ("delivery_event", "bounce_effect", "overflow", "message_request", "variant_outcome"):
        connection.execute(sa.text(f"DELETE FROM {table} WHERE touch_id {old}"), parameters)
    connection.execute(sa.text(f"UPDATE bounce_mail SET touch_id = NULL WHERE touch_id {old}"), parameters)
    return connection.execute(sa.text(f"DELETE FROM touch WHERE id {old}"), parameters).rowcount
