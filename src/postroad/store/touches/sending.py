"""Moves touches to the queue and to the wire. Only `admit` lets a touch be sent, and the database decides it.

Whatever the queue forgets or repeats, no touch is sent twice. A claim is identified by the queue's token, which is
never issued again; an ordinal number would be, after the queue lost its memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from postroad.store.bulk import any_of, found_sql, id_rows, json_rows, locked_touches
from postroad.store.campaign import OnReply
from postroad.store.frequency import FrequencyRule, lock_recipients
from postroad.store.ledger import TouchState
from postroad.store.outcome_event import insert_outcomes
from postroad.store.suppression import suppressed_sql
from postroad.store.touches.transitions import Condition, TouchEvent, allowed_sql
from postroad.store.types import UtcDateTime, sql_time


def mark_queued(connection: sa.Connection, touch_ids: Sequence[int]) -> int:
    """Move planned touches whose jobs are in the queue to ``queued``.

    Args:
        connection: A connection in a transaction that writes.
        touch_ids: The touches. One that a worker admitted in the meantime, or that ended, is not changed.

    Returns:
        The number of touches that moved.
    """
    fence, parameters = locked_touches(connection, touch_ids, "state")
    allowed = allowed_sql(TouchEvent.ENQUEUED, TouchState.QUEUED, state="mine.state")
    statement = sa.text(
        f"{fence} UPDATE touch SET state = '{TouchState.QUEUED}' FROM mine WHERE touch.id = mine.id AND {allowed} "
        "RETURNING touch.id"
    )
    return len(connection.execute(statement, parameters).all())


class Claim(NamedTuple):
    """The queue's claim of one touch.

    ``token``: identifies the claim. ``closed``: tokens of earlier claims that ended without delivery. ``hashed``: hash
    of the recipient's address, by which a suppression may be stored. ``sender_id``: the sender in place of the
    campaign's, as the job has it; 0: the campaign's. ``address``: the recipient's address, as the job has it.
    ``version``: version of the step that the job was made for.
    """

    touch_id: int
    token: int
    closed: Sequence[int] = ()
    hashed: str | None = None
    sender_id: int = 0
    address: str = ""
    version: int = 1


class RejectedClaim(sa.Row[tuple[int, str, int, str, bool, int, bool, int]]):
    """Shape of a row of `rejected_claims`: the touch, its campaign's state, and whether its recipient is suppressed.

    ``sender_id``: the sender in place of the campaign's; 0: the campaign's. ``recalled``: its step was recalled.
    ``version``: the version of its step.
    """

    id: int
    state: str
    claim: int
    campaign_state: str
    suppressed: bool
    sender_id: int
    recalled: bool
    version: int


_CLAIM_COLUMNS: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "claim": sa.BigInteger()}
_HASHED_COLUMNS: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "hashed": sa.Text()}


def admit(connection: sa.Connection, claims: Sequence[Claim], rule: FrequencyRule | None = None) -> set[int]:
    """Move touches to ``sending``.

    A touch does not move if its recipient is suppressed, it has ended, its step was recalled, its campaign is not
    running, another sender is to send it, its job has another version of its step, a frequency cap holds it, or an
    earlier claim put it on the wire and the queue does not report that this claim ended without delivery.

    Args:
        connection: A connection in a transaction that writes. With caps its isolation level is READ COMMITTED.
        claims: The claims of the touches.
        rule: The frequency caps. None: no caps.

    Returns:
        The touches that moved.
    """
    if rule is None or not rule.caps:
        return _admit(connection, claims, rule)
    lock_recipients(connection, [claim.touch_id for claim in claims], rule)
    admitted: set[int] = set()
    # The statement of a round counts what the rounds before admitted.
    for claims_of_round in _one_per_recipient(claims):
        admitted |= _admit(connection, claims_of_round, rule)
    return admitted


def _one_per_recipient(claims: Sequence[Claim]) -> list[list[Claim]]:
    """Split claims into rounds with at most one claim of a recipient, in order."""
    rounds: list[list[Claim]] = [[]]
    counts: Counter[str] = Counter()
    for claim in claims:
        number = counts[claim.address] if claim.address else 0
        counts[claim.address] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(claim)
    return rounds


def _admit(connection: sa.Connection, claims: Sequence[Claim], rule: FrequencyRule | None) -> set[int]:
    rows = [
        {
            "id": claim.touch_id,
            "claim": claim.token,
            "hashed": claim.hashed,
            "sender": claim.sender_id,
            "version": claim.version,
        }
        for claim in sorted(claims, key=lambda claim: claim.touch_id)  # as other statements lock them
    ]
    columns = _CLAIM_COLUMNS | _HASHED_COLUMNS | {"sender": sa.BigInteger(), "version": sa.Integer()}
    item, parameters = json_rows(connection, "batch", columns, rows)
    ended = [{"id": claim.touch_id, "claim": token} for claim in claims for token in claim.closed]
    ended_item, ended_parameters = json_rows(connection, "ended", _CLAIM_COLUMNS, ended)
    claim_ended = f"EXISTS (SELECT 1 FROM {ended_item} WHERE ended.id = touch.id AND ended.claim = touch.claim)"
    allowed = allowed_sql(TouchEvent.ADMITTED, TouchState.SENDING, conditions={Condition.CLAIM_ENDED: claim_ended})
    under_cap = f" AND {rule.allows_sql}" if rule is not None else ""
    # PostgreSQL must look up the ids, and not read the whole table because the condition is expensive.
    ids = any_of(connection, f"SELECT batch.id FROM {item}")
    looked_up = f"touch.id {ids} AND " if connection.dialect.name == "postgresql" else ""
    statement = (
        f"UPDATE touch SET state = '{TouchState.SENDING}', claim = batch.claim, next_at = NULL, settled_at = NULL, "
        f"version = batch.version FROM {item} WHERE {looked_up}touch.id = batch.id "
        "AND COALESCE(touch.sender_id, 0) = batch.sender "
        f"AND {allowed} AND EXISTS (SELECT 1 FROM campaign JOIN step ON step.id = touch.step_id "
        "AND step.recalled_at IS NULL AND step.version = batch.version "
        "JOIN recipient ON recipient.id = touch.recipient_id "
        "WHERE campaign.id = touch.campaign_id AND campaign.state = 'running' "
        f"AND NOT {suppressed_sql('batch.hashed', request='touch.request_id')}{under_cap}) "
        "RETURNING touch.id"
    )
    prepared = rule.prepare(statement) if rule is not None else sa.text(statement)
    return set(connection.execute(prepared, parameters | ended_parameters).scalars())


def rejected_claims(
    connection: sa.Connection, touch_ids: Sequence[int], hashes: Mapping[int, str | None] | None = None
) -> dict[int, RejectedClaim]:
    """Return why `admit` did not move these touches. A touch that the ledger does not have is missing.

    Args:
        connection: A connection in the transaction of `admit`.
        touch_ids: The touches that did not move.
        hashes: Hashes of the recipients' addresses, as in the claims.
    """
    rows = [{"id": touch_id, "hashed": hashes.get(touch_id) if hashes else None} for touch_id in touch_ids]
    item, parameters = json_rows(connection, "batch", _HASHED_COLUMNS, rows)
    statement = sa.text(
        "SELECT touch.id, touch.state, touch.claim, campaign.state AS campaign_state, "
        f"{suppressed_sql('batch.hashed', request='touch.request_id')} AS suppressed, "
        "COALESCE(touch.sender_id, 0) AS sender_id, step.recalled_at IS NOT NULL AS recalled, "
        "step.version "
        f"FROM {item} JOIN touch ON touch.id = batch.id JOIN campaign ON campaign.id = touch.campaign_id "
        "JOIN step ON step.id = touch.step_id JOIN recipient ON recipient.id = touch.recipient_id"
    )
    return {row.id: row for row in connection.execute(statement, parameters)}  # type: ignore[misc]


def unqueue(connection: sa.Connection, touch_ids: Sequence[int]) -> set[int]:
    """Move touches that wait back to ``planned``: their jobs were made for an earlier version of their step.

    They are enqueued again at the next submission. The jobs must end without delivery.

    Returns:
        The touches that moved.
    """
    fence, parameters = locked_touches(connection, touch_ids, "state")
    allowed = allowed_sql(TouchEvent.UNQUEUED, TouchState.PLANNED, state="mine.state")
    statement = sa.text(
        f"{fence} UPDATE touch SET state = '{TouchState.PLANNED}' FROM mine WHERE touch.id = mine.id AND {allowed} "
        "RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters).scalars())


QUEUE_LOST: Final = "queue-lost"
"""Cause of the event of a touch that was being sent when the queue lost its job."""
_QUEUE_LOST_REPLY: Final = "the queue was lost while it was on the wire"


def mark_unknown(connection: sa.Connection, touch_ids: Sequence[int], now: datetime) -> int:
    """Move touches whose claim is lost from ``sending`` to ``unknown``: they may have been delivered.

    Returns:
        The number of touches that moved.
    """
    item, parameters = id_rows(connection, touch_ids)
    statement = sa.text(
        f"UPDATE touch SET state = '{TouchState.UNKNOWN}', settled_at = :now, cause = '{QUEUE_LOST}', "
        f"reply = '{_QUEUE_LOST_REPLY}' FROM {item} WHERE touch.id = batch.id "
        f"AND {allowed_sql(TouchEvent.QUEUE_LOST, TouchState.UNKNOWN)} RETURNING touch.id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    moved = list(connection.execute(statement, {"now": now, **parameters}).scalars())
    item, parameters = id_rows(connection, moved)
    event = {
        "uid": "touch.id || '-' || touch.claim || '-lost'",  # A claim is lost once.
        "touch_id": "touch.id",
        "state": "touch.state",
        "at": ":now",
        "attempt": "0",
        "cause": f"'{QUEUE_LOST}'",
        "reply": f"'{_QUEUE_LOST_REPLY}'",
    }
    insert_outcomes(connection, event, {"now": now, **parameters}, touch="batch.id", rows=item)
    return len(moved)


def set_not_before(connection: sa.Connection, touch_ids: Sequence[int], until: datetime) -> set[int]:
    """Set the time before which touches in the queue are not sent. Returns the touches that wait there."""
    item, parameters = id_rows(connection, touch_ids)
    statement = sa.text(
        f"UPDATE touch SET next_at = :until FROM {item} WHERE touch.id = batch.id "
        f"AND {allowed_sql(TouchEvent.POSTPONED)} RETURNING touch.id"
    ).bindparams(sa.bindparam("until", type_=UtcDateTime()))
    return set(connection.execute(statement, {"until": until, **parameters}).scalars())


class HeldTouch(NamedTuple):
    """A touch that waits until a time, and why."""

    touch_id: int
    until: datetime
    why: str


def hold(connection: sa.Connection, touches: Sequence[HeldTouch]) -> set[int]:
    """Move touches that wait back to ``planned``, with later due times. They are enqueued again when they are due.

    ``first_due_at`` keeps the time at which such a touch was due first.

    Returns:
        The touches that moved.
    """
    dialect = connection.dialect.name
    rows = [{"id": touch.touch_id, "due_at": sql_time(touch.until, dialect), "why": touch.why} for touch in touches]
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "due_at": UtcDateTime(), "why": sa.Text()}
    item, parameters = json_rows(connection, "held", columns, rows)
    statement = sa.text(
        f"UPDATE touch SET state = '{TouchState.PLANNED}', due_at = held.due_at, next_at = NULL, reply = held.why, "
        "first_due_at = COALESCE(touch.first_due_at, touch.due_at) "
        f"FROM {item} WHERE touch.id = held.id AND {allowed_sql(TouchEvent.HELD, TouchState.PLANNED)} "
        "RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters).scalars())


_REPLIED = found_sql(
    "touch AS theirs CROSS JOIN delivery_event WHERE theirs.recipient_id = touch.recipient_id AND +theirs.campaign_id "
    "= touch.campaign_id AND delivery_event.touch_id = theirs.id AND delivery_event.cause = 'reply'"
)
_SEQUENCE_ENDED = f"(touch.campaign_id IN :stopping AND {_REPLIED})"
"""SQL condition that the recipient of a touch replied, and that the reply ended the sequence."""


def requeue_dead(connection: sa.Connection, touch_ids: Sequence[int]) -> dict[int, str]:
    """Move dead and expired touches back to ``queued``. A finished campaign runs again until they have ended.

    Touches of a cancelled campaign do not move, nor do those of a recipient whose reply ended the sequence.

    Returns:
        The name of the campaign of each touch that moved.
    """
    item, parameters = id_rows(connection, touch_ids)
    # Locked first: `finish_if_done` must see either all of this or nothing.
    lock = "" if connection.dialect.name == "sqlite" else "FOR UPDATE"
    campaigns = sa.text(
        "SELECT id, name, on_reply FROM campaign WHERE state IN ('running', 'paused', 'finished') AND id IN "
        f"(SELECT touch.campaign_id FROM {item} JOIN touch ON touch.id = batch.id) ORDER BY id {lock}"
    )
    found = connection.execute(campaigns, parameters).all()
    names = {row.id: row.name for row in found}
    ids = f"SELECT batch.id FROM {item}"
    # The sign before campaign_id: SQLite must not search a whole campaign for each of the ids.
    statement = sa.text(
        f"UPDATE touch SET state = '{TouchState.QUEUED}', settled_at = NULL "
        f"WHERE touch.id {any_of(connection, ids)} AND {allowed_sql(TouchEvent.REQUEUED, TouchState.QUEUED)} "
        f"AND +touch.campaign_id IN :campaigns AND NOT {_SEQUENCE_ENDED} RETURNING touch.id, touch.campaign_id"
    ).bindparams(*(sa.bindparam(name, expanding=True) for name in ("campaigns", "stopping")))
    stopping = [row.id for row in found if row.on_reply == OnReply.STOP]
    rows = connection.execute(statement, {**parameters, "campaigns": list(names), "stopping": stopping}).all()
    reopen_campaigns(connection, {row.campaign_id for row in rows})
    return {row.id: names[row.campaign_id] for row in rows}


def reopen_campaigns(connection: sa.Connection, campaign_ids: Collection[int]) -> None:
    """Let finished campaigns run until the touches that they have again have ended. Their rows must be locked."""
    reopen = sa.text(
        "UPDATE campaign SET state = 'running', finished_at = NULL, emptied_at = NULL "
        "WHERE state = 'finished' AND id IN :campaigns"
    ).bindparams(sa.bindparam("campaigns", expanding=True))
    connection.execute(reopen, {"campaigns": sorted(campaign_ids)})


class NewSender(NamedTuple):
    """A touch that another sender is to send, and why."""

    touch_id: int
    sender_id: int
    why: str


def assign_senders(
    connection: sa.Connection, assignments: Sequence[NewSender], from_sender_id: int, now: datetime
) -> int:
    """Give planned touches to other senders, and record from whom and why.

    A touch that has another sender already is not changed.

    Returns:
        The number of touches that were given.
    """
    rows = [{"id": one.touch_id, "sender": one.sender_id, "why": one.why[:200]} for one in assignments]
    columns: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "sender": sa.BigInteger(), "why": sa.Text()}
    item, parameters = json_rows(connection, "moved", columns, rows)
    allowed = allowed_sql(TouchEvent.REASSIGNED, conditions={Condition.OWN_SENDER: "touch.sender_id IS NULL"})
    update = sa.text(
        f"UPDATE touch SET sender_id = moved.sender FROM {item} WHERE touch.id = moved.id AND {allowed} "
        "RETURNING touch.id"
    )
    assigned = connection.execute(update, parameters).scalars().all()
    log = sa.text(
        "INSERT INTO overflow (touch_id, from_sender_id, sender_id, at, why, step_id) "
        f"SELECT moved.id, :own, moved.sender, :now, moved.why, touch.step_id FROM {item} "
        "JOIN touch ON touch.id = moved.id AND touch.sender_id = moved.sender WHERE true"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(log, {"own": from_sender_id, "now": now, **parameters})
    return len(assigned)
