"""The ledger: one row for each touch, moved only forward, by one statement for many.

::

    planned ─► queued ─► sending ─► accepted | bounced | dead | expired | unknown
       │          ▲          │
       │          └ deferred ◄┘        unknown ─► accepted | bounced | dead   (when it is found out)
       └─► suppressed | cancelled      (also from queued and deferred)

A touch is on the wire only while it is ``sending``, and gets there only by `admit`, which the database decides.
So whatever the queue forgets or repeats, no touch is sent twice.
A claim is named by the queue's token, which never comes again: an ordinal would, when the queue loses its memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

from postroad.store.bulk import any_of, json_rows
from postroad.store.suppression import suppressed_sql
from postroad.store.types import BIG_ID, StrEnumType, UtcDateTime


class TouchState(StrEnum):
    """Where a touch stands."""

    PLANNED = "planned"
    QUEUED = "queued"
    SENDING = "sending"
    DEFERRED = "deferred"
    ACCEPTED = "accepted"
    BOUNCED = "bounced"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DEAD = "dead"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """No more will happen by itself."""
        return self not in LIVE


LIVE = (TouchState.PLANNED, TouchState.QUEUED, TouchState.SENDING, TouchState.DEFERRED)
"""States from which a touch still moves on by itself."""

WAITING = (TouchState.PLANNED, TouchState.QUEUED, TouchState.DEFERRED)
"""Live, and not on the wire."""


class Touch(SQLModel, table=True):
    """One step to one recipient."""

    __tablename__ = "touch"
    __table_args__ = (
        sa.UniqueConstraint("campaign_id", "step_id", "recipient_id"),
        sa.Index(
            "ix_touch_planned",
            "campaign_id",
            "due_at",
            "id",
            sqlite_where=sa.text("state = 'planned'"),
            postgresql_where=sa.text("state = 'planned'"),
        ),
        sa.Index(
            "ix_touch_follow_up",
            "campaign_id",
            "step_id",
            "id",
            sqlite_where=sa.text("follow_up AND state = 'accepted'"),
            postgresql_where=sa.text("follow_up AND state = 'accepted'"),
        ),
        sa.Index(
            "ix_touch_dead",
            "campaign_id",
            "id",
            sqlite_where=sa.text("state = 'dead'"),
            postgresql_where=sa.text("state = 'dead'"),
        ),
        sa.Index("ix_touch_recipient", "recipient_id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID)
    step_id: int = Field(foreign_key="step.id", sa_type=BIG_ID)
    recipient_id: int = Field(foreign_key="recipient.id", sa_type=BIG_ID)
    state: TouchState = Field(sa_type=StrEnumType(TouchState))
    due_at: datetime = Field(sa_type=UtcDateTime)
    sender_id: int | None = Field(
        default=None, sa_type=BIG_ID, description="who sends it in place of its campaign's sender"
    )
    claim: int = Field(
        default=0, sa_type=BIG_ID, description="the queue's token of the claim that last put it on the wire"
    )
    reply: str | None = Field(
        default=None, sa_type=sa.String(500), description="what the receiver said last, or why it ended"
    )
    next_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="of a deferred one: not before")
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="when it ended")
    follow_up: bool = Field(
        default=False,
        sa_column_kwargs={"server_default": sa.false()},
        description="once it is accepted, the next email is to be planned",
    )


class DeliveryEvent(SQLModel, table=True):
    """One thing that happened to a touch on its way."""

    __tablename__ = "delivery_event"
    __table_args__ = (
        sa.Index(
            "ix_delivery_event_words",
            "words",
            "blame",
            "at",
            sqlite_where=sa.text("words IS NOT NULL"),
            postgresql_where=sa.text("words IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    uid: str = Field(sa_type=sa.String(80), unique=True, description="of the queue's event: recorded once")
    touch_id: int = Field(sa_type=BIG_ID, foreign_key="touch.id", index=True)
    state: TouchState = Field(sa_type=StrEnumType(TouchState))
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    attempt: int
    reply_code: int | None = None
    enhanced_code: str | None = Field(default=None, sa_type=sa.String(12))
    reply: str | None = Field(default=None, sa_type=sa.String(500))
    cause: str | None = Field(default=None, sa_type=sa.String(100))
    blame: str | None = Field(default=None, sa_type=sa.String(16))
    next_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    words: str | None = Field(
        default=None, sa_type=sa.String(32), description="key of words that mean the sender if many recipients get them"
    )


class Overflow(SQLModel, table=True):
    """One touch that went to another sender: who was to send it, who is to now, and why."""

    __tablename__ = "overflow"

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    touch_id: int = Field(sa_type=BIG_ID, foreign_key="touch.id", index=True)
    from_sender_id: int = Field(sa_type=BIG_ID, foreign_key="sender.id")
    sender_id: int = Field(sa_type=BIG_ID, foreign_key="sender.id")
    at: datetime = Field(sa_type=UtcDateTime)
    why: str = Field(sa_type=sa.String(200))


SENDER_OF_TOUCH = "COALESCE(touch.sender_id, campaign.sender_id)"
"""SQL of the id of who sends a touch, where its campaign is joined."""


class Refused(sa.Row[tuple[int, str, int, str, bool, int]]):
    """Shape of `refused`'s rows: touch, its state and claim, its campaign's state, whether it is suppressed; and who
    sends it in place of its campaign's sender, 0 for nobody.
    """

    id: int
    state: str
    claim: int
    campaign_state: str
    suppressed: bool
    sender_id: int


class Claim(NamedTuple):
    """The queue's claim of one touch: its token, and those of earlier claims that ended without delivery.

    ``hashed``: the hash of the recipient's address, which a suppression may be kept by. ``sender_id``: who the job
    thinks sends it in place of its campaign's sender; 0: nobody.
    """

    touch_id: int
    token: int
    closed: Sequence[int] = ()
    hashed: str | None = None
    sender_id: int = 0


_CLAIM_COLUMNS: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "claim": sa.BigInteger()}
_HASHED_COLUMNS: dict[str, TypeEngine[Any]] = {"id": sa.BigInteger(), "hashed": sa.Text()}


def admit(connection: sa.Connection, claims: Sequence[Claim]) -> set[int]:
    """Move touches to ``sending``; return those that moved.

    Not moved: what is suppressed, what has ended, what is not of a running campaign, and what an earlier claim
    put on the wire of which the queue does not say that it ended without delivery: the queue has forgotten it. And
    what another sender is to send by now.
    """
    rows = [
        {"id": claim.touch_id, "claim": claim.token, "hashed": claim.hashed, "sender": claim.sender_id}
        for claim in claims
    ]
    columns = _CLAIM_COLUMNS | _HASHED_COLUMNS | {"sender": sa.BigInteger()}
    item, parameters = json_rows(connection, "batch", columns, rows)
    ended = [{"id": claim.touch_id, "claim": token} for claim in claims for token in claim.closed]
    ended_item, ended_parameters = json_rows(connection, "ended", _CLAIM_COLUMNS, ended)
    statement = sa.text(
        "UPDATE touch SET state = 'sending', claim = batch.claim, next_at = NULL, settled_at = NULL "
        f"FROM {item} WHERE touch.id = batch.id AND COALESCE(touch.sender_id, 0) = batch.sender "
        "AND (touch.state IN ('planned', 'queued', 'deferred') OR (touch.state IN ('sending', 'unknown') "
        f"AND EXISTS (SELECT 1 FROM {ended_item} WHERE ended.id = touch.id AND ended.claim = touch.claim))) "
        "AND EXISTS (SELECT 1 FROM campaign JOIN recipient ON recipient.id = touch.recipient_id "
        "WHERE campaign.id = touch.campaign_id AND campaign.state = 'running' "
        f"AND NOT {suppressed_sql('batch.hashed')}) "
        "RETURNING touch.id"
    )
    return set(connection.execute(statement, parameters | ended_parameters).scalars())


def refused(
    connection: sa.Connection, touch_ids: Sequence[int], hashes: Mapping[int, str | None] | None = None
) -> dict[int, Refused]:
    """Why `admit` did not move these touches. One that is missing here is not in the ledger.

    ``hashes``: those of the recipients' addresses, as in the claims.
    """
    rows = [{"id": touch_id, "hashed": hashes.get(touch_id) if hashes else None} for touch_id in touch_ids]
    item, parameters = json_rows(connection, "batch", _HASHED_COLUMNS, rows)
    statement = sa.text(
        "SELECT touch.id, touch.state, touch.claim, campaign.state AS campaign_state, "
        f"{suppressed_sql('batch.hashed')} AS suppressed, COALESCE(touch.sender_id, 0) AS sender_id "
        f"FROM {item} JOIN touch ON touch.id = batch.id JOIN campaign ON campaign.id = touch.campaign_id "
        "JOIN recipient ON recipient.id = touch.recipient_id"
    )
    return {row.id: row for row in connection.execute(statement, parameters)}  # type: ignore[misc]


_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)

DUE = (
    "SELECT id, recipient_id FROM touch WHERE campaign_id = :campaign_id AND state = 'planned' AND due_at <= :until "
    "AND (due_at, id) > (:since, :after_id) ORDER BY due_at, id LIMIT :limit"
)
"""SQL of a campaign's next due touches. In the order of the index of planned touches, and from a place in it: however
many have gone before, it reads what it returns and nothing else.
"""
DUE_TYPES = [sa.bindparam(name, type_=UtcDateTime()) for name in ("until", "since")]


def due_values(
    connection: sa.Connection, campaign_id: int, *, after_id: int, until: datetime, limit: int
) -> dict[str, Any]:
    """What `DUE` reads: planned touches that are due until an instant, behind the touch after_id; 0: from the first."""
    instant = sa.text("SELECT due_at FROM touch WHERE id = :after_id").columns(sa.column("due_at", UtcDateTime()))
    since = connection.execute(instant, {"after_id": after_id}).scalar() or _BEFORE_ALL
    return {"campaign_id": campaign_id, "after_id": after_id, "since": since, "until": until, "limit": limit}


def due_touches(
    connection: sa.Connection, campaign_id: int, *, after_id: int, until: datetime, limit: int
) -> list[int]:
    """Return planned touches that are due, the first due first. ``after_id``: the last of those that went before."""
    values = due_values(connection, campaign_id, after_id=after_id, until=until, limit=limit)
    return list(connection.execute(sa.text(DUE).bindparams(*DUE_TYPES), values).scalars())


def mark_queued(connection: sa.Connection, touch_ids: Sequence[int]) -> int:
    """Move planned touches that the queue has to ``queued``. Returns how many moved.

    Those that a worker admitted meanwhile, or that ended, stay as they are.
    """
    fence, parameters = locked_batch(connection, touch_ids, "state")
    statement = sa.text(
        f"{fence} UPDATE touch SET state = 'queued' FROM mine WHERE touch.id = mine.id AND mine.state = 'planned' "
        "RETURNING touch.id"
    )
    return len(connection.execute(statement, parameters).all())


def locked_batch(connection: sa.Connection, touch_ids: Sequence[int], columns: str) -> tuple[str, dict[str, str]]:
    """Return a WITH clause `mine` of these touches, locked, with their ids and these columns; and its parameter.

    A condition on a column of `mine` is not one on the table. Otherwise PostgreSQL, before its first ANALYZE, reads all
    of a partial index whose condition it is.
    """
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": id_} for id_ in touch_ids])
    picks = ", ".join(f"touch.{column}" for column in ("id", *columns.split(", ")))
    lock = "" if connection.dialect.name == "sqlite" else "ORDER BY touch.id FOR UPDATE OF touch"
    return (
        f"WITH mine AS MATERIALIZED (SELECT {picks} FROM {item} JOIN touch ON touch.id = batch.id {lock})",
        parameters,
    )


def _end_waiting(connection: sa.Connection, where: str, now: datetime, values: Mapping[str, Any]) -> list[int]:
    """End as suppressed the touches that wait and that a condition picks. Returns those that may be on a queue."""
    ended = f"UPDATE touch SET state = 'suppressed', settled_at = :now WHERE {where} AND state IN "
    states = "('planned', 'queued', 'deferred') RETURNING id"
    statement = sa.text(ended + states).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return list(connection.execute(statement, {"now": now, **values}).scalars())


def end_touches_of(connection: sa.Connection, recipient_id: int, now: datetime, audience_id: int = 0) -> list[int]:
    """End every touch of a recipient that is not on the wire as suppressed. Returns which.

    ``audience_id``: only those of campaigns to this audience; 0: all.
    """
    where = (
        "recipient_id = :recipient_id "
        "AND (:audience_id = 0 OR campaign_id IN (SELECT id FROM campaign WHERE audience_id = :audience_id))"
    )
    return _end_waiting(connection, where, now, {"recipient_id": recipient_id, "audience_id": audience_id})


def note_unsubscribe(connection: sa.Connection, touch_id: int, source: str, now: datetime) -> bool:
    """Note that the recipient of a touch unsubscribed, once. Returns whether this was the first time."""
    statement = sa.text(
        "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause, reply) "
        "SELECT :uid, id, state, :now, 0, 'unsubscribe', :source FROM touch WHERE id = :id ON CONFLICT (uid) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {"uid": f"{touch_id}:unsubscribe", "id": touch_id, "now": now, "source": source}
    return connection.execute(statement, values).rowcount > 0


def note_reply(connection: sa.Connection, touch_id: int, digest: str, now: datetime) -> None:
    """Note that the recipient of a touch replied, once for each mail."""
    statement = sa.text(
        "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause) "
        "SELECT :uid, id, state, :now, 0, 'reply' FROM touch WHERE id = :id ON CONFLICT (uid) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(statement, {"uid": f"reply:{digest}", "id": touch_id, "now": now})


def end_sequence_of(
    connection: sa.Connection, campaign_id: int, recipient_id: int, why: str, now: datetime
) -> list[int]:
    """Cancel what a recipient would still get of a campaign. Returns touches of which jobs may be on the queue.

    Steps that are not planned yet get a touch that is cancelled, so that they never are.
    """
    values = {"campaign_id": campaign_id, "recipient_id": recipient_id, "why": why, "now": now}
    # These first: one that is being planned this moment is waited for, and is among those that wait afterwards.
    ahead = sa.text(
        "INSERT INTO touch (campaign_id, step_id, recipient_id, state, due_at, claim, reply, settled_at) "
        "SELECT :campaign_id, step.id, :recipient_id, 'cancelled', :now, 0, :why, :now FROM step "
        "WHERE step.campaign_id = :campaign_id AND step.kind = 'email' ORDER BY step.position "
        "ON CONFLICT (campaign_id, step_id, recipient_id) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(ahead, values)
    waiting = sa.text(
        "UPDATE touch SET state = 'cancelled', settled_at = :now, next_at = NULL, reply = :why "
        "WHERE campaign_id = :campaign_id AND recipient_id = :recipient_id "
        "AND state IN ('planned', 'queued', 'deferred') RETURNING id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return sorted(connection.execute(waiting, values).scalars())


def hold_unknown(connection: sa.Connection, touch_ids: Sequence[int], now: datetime) -> int:
    """Hold touches whose claim is lost: they were on the wire, and nobody knows what became of it."""
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    statement = sa.text(
        "UPDATE touch SET state = 'unknown', settled_at = :now, reply = 'the queue was lost while it was on the wire' "
        f"FROM {item} WHERE touch.id = batch.id AND touch.state = 'sending'"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return connection.execute(statement, {"now": now, **parameters}).rowcount


class Resolved(sa.Row[tuple[str, int]]):
    """Shape of what `resolve_unknown` returns: the campaign's name and the touch's last claim."""

    campaign: str
    claim: int


def resolve_unknown(
    connection: sa.Connection, touch_id: int, state: TouchState, *, by: str, now: datetime, said: str = ""
) -> Resolved | None:
    """Settle a touch that is unknown, and note who said so, and in which words. None: it is not unknown."""
    settled = sa.text(
        "UPDATE touch SET state = :state, settled_at = :settled_at, reply = :reply "
        "WHERE id = :id AND state = 'unknown' RETURNING claim, "
        "(SELECT name FROM campaign WHERE campaign.id = touch.campaign_id) AS campaign"
    ).bindparams(sa.bindparam("settled_at", type_=UtcDateTime()))
    reply = f"resolved as {state} by {by}{': ' if said else ''}{said}"[:500]
    values = {"id": touch_id, "state": state.value, "settled_at": now if state.ended else None, "reply": reply}
    row = connection.execute(settled, values).one_or_none()
    if row is None:
        return None
    noted = sa.text(
        "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause, reply) "
        "VALUES (:uid, :id, :state, :at, 0, 'resolved', :reply)"
    ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
    # Its instant tells it from an earlier doubt about the same touch.
    uid = f"{touch_id}:{now.timestamp():.6f}:resolved"
    connection.execute(noted, {"uid": uid, "id": touch_id, "state": state.value, "at": now, "reply": reply})
    return row  # type: ignore[return-value]


def delivery_events(connection: sa.Connection, touch_id: int) -> list[sa.Row[tuple[object, ...]]]:
    """What happened to one touch, the newest first: at, state, attempt, cause, reply."""
    statement = sa.text(
        "SELECT at, state, attempt, cause, reply FROM delivery_event WHERE touch_id = :id ORDER BY at DESC, id DESC"
    ).columns(
        sa.column("at", UtcDateTime()),
        sa.column("state", sa.Text()),
        sa.column("attempt", sa.Integer()),
        sa.column("cause", sa.Text()),
        sa.column("reply", sa.Text()),
    )
    return list(connection.execute(statement, {"id": touch_id}).all())


def known_touches(connection: sa.Connection, touch_ids: Sequence[int]) -> set[int]:
    """Return which of these touches exist."""
    touch_id = sa.column("id", sa.BigInteger())
    statement = sa.select(touch_id).select_from(sa.table("touch")).where(touch_id.in_(touch_ids))
    return set(connection.execute(statement).scalars())


def cancel_touches(connection: sa.Connection, touch_ids: Sequence[int], now: datetime) -> set[int]:
    """End touches that are not on the wire. Returns which."""
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    statement = sa.text(
        "UPDATE touch SET state = 'cancelled', settled_at = :now "
        f"FROM {item} WHERE touch.id = batch.id AND touch.state IN ('planned', 'queued', 'deferred') RETURNING touch.id"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    return set(connection.execute(statement, {"now": now, **parameters}).scalars())


def put_off(connection: sa.Connection, touch_ids: Sequence[int], until: datetime) -> set[int]:
    """Let touches that wait in the queue go no earlier than an instant. Returns which."""
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    statement = sa.text(
        "UPDATE touch SET next_at = :until "
        f"FROM {item} WHERE touch.id = batch.id AND touch.state IN ('queued', 'deferred') RETURNING touch.id"
    ).bindparams(sa.bindparam("until", type_=UtcDateTime()))
    return set(connection.execute(statement, {"until": until, **parameters}).scalars())


def revive(connection: sa.Connection, touch_ids: Sequence[int]) -> dict[int, str]:
    """Put dead and expired touches back to ``queued``, for a replay. Returns the campaign's name of each that moved.

    A campaign that is finished runs again until they have ended. Those of one that was cancelled stay.
    """
    item, parameters = json_rows(connection, "batch", {"id": sa.BigInteger()}, [{"id": i} for i in touch_ids])
    # Locked first: `finish_if_done` must see either all of this or nothing.
    lock = "" if connection.dialect.name == "sqlite" else "FOR UPDATE"
    campaigns = sa.text(
        "SELECT id, name FROM campaign WHERE state IN ('running', 'paused', 'finished') AND id IN "
        f"(SELECT touch.campaign_id FROM {item} JOIN touch ON touch.id = batch.id) ORDER BY id {lock}"
    )
    names = {row.id: row.name for row in connection.execute(campaigns, parameters)}
    ids = f"SELECT batch.id FROM {item}"
    # The sign before campaign_id: SQLite must not search a whole campaign for each of the ids.
    statement = sa.text(
        f"UPDATE touch SET state = 'queued', settled_at = NULL WHERE touch.id {any_of(connection, ids)} "
        "AND touch.state IN ('dead', 'expired') AND +touch.campaign_id IN :campaigns "
        "RETURNING touch.id, touch.campaign_id"
    ).bindparams(sa.bindparam("campaigns", expanding=True))
    rows = connection.execute(statement, {**parameters, "campaigns": list(names)}).all()
    reopen = sa.text(
        "UPDATE campaign SET state = 'running', finished_at = NULL, emptied_at = NULL "
        "WHERE state = 'finished' AND id IN :campaigns"
    ).bindparams(sa.bindparam("campaigns", expanding=True))
    connection.execute(reopen, {"campaigns": sorted({row.campaign_id for row in rows})})
    return {row.id: names[row.campaign_id] for row in rows}
