"""The ledger: one row for each touch, and one for each thing that happened to it.

A touch is one email to one recipient. The statements that change touches are in `postroad.store.touches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from postroad.store.types import BIG_ID, PartialIndex, StoredRow, StrEnumType, UtcDateTime
from postroad.store.variant import VariantOutcome, record_outcomes


class TouchState(StrEnum):
    """The state of a touch. `postroad.store.touches.transitions` has the events that change it."""

    WITHHELD = "withheld"
    AWAITING = "awaiting"
    PLANNED = "planned"
    QUEUED = "queued"
    SENDING = "sending"
    DEFERRED = "deferred"
    ACCEPTED = "accepted"
    BOUNCED = "bounced"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    DEAD = "dead"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the touch by itself."""
        return self not in LIVE


LIVE = (
    TouchState.WITHHELD,
    TouchState.AWAITING,
    TouchState.PLANNED,
    TouchState.QUEUED,
    TouchState.SENDING,
    TouchState.DEFERRED,
)
"""States in which a touch is still to be submitted, sent or recorded."""

WAITING = (TouchState.PLANNED, TouchState.QUEUED, TouchState.DEFERRED)
"""Live states in which a touch is not on the wire, and may be sent."""

UNSENT = (TouchState.WITHHELD, TouchState.AWAITING, *WAITING)
"""Live states in which a touch is not on the wire. A withheld or an awaiting one must not be sent."""

ON_THE_WIRE = (TouchState.SENDING, TouchState.UNKNOWN)
"""States in which the last claim may have reached a server."""

SENT_OR_SKIPPED = (TouchState.ACCEPTED, TouchState.SKIPPED)
"""States after which the recipient gets the next email of the sequence."""

IN_PROGRESS = (TouchState.QUEUED, TouchState.DEFERRED, TouchState.SENDING)
"""Live states in which a touch has a job, unless the queue lost it."""

UNDECIDED = (TouchState.DEAD, TouchState.UNKNOWN)
"""States in which a person decides what becomes of a touch."""

_FAILED_OF_JOURNEY = "enrolled AND state IN ('bounced', 'suppressed', 'cancelled', 'expired', 'dead', 'unknown')"


class Touch(StoredRow, table=True):
    """One step to one recipient."""

    __tablename__ = "touch"
    __table_args__ = (
        sa.UniqueConstraint("campaign_id", "step_id", "recipient_id", "request_id", name="touch_key"),
        PartialIndex("ix_touch_planned", "campaign_id", "due_at", "id", where="state = 'planned'"),
        PartialIndex(
            "ix_touch_follow_up", "campaign_id", "step_id", "id", where="follow_up AND state IN ('accepted', 'skipped')"
        ),
        PartialIndex("ix_touch_dead", "campaign_id", "id", where="state = 'dead'"),
        PartialIndex("ix_touch_failed", "campaign_id", "id", where=_FAILED_OF_JOURNEY),
        PartialIndex("ix_touch_awaiting", "campaign_id", "step_id", "id", where="state = 'awaiting'"),
        PartialIndex("ix_touch_withheld", "campaign_id", "share", "id", where="state = 'withheld'"),
        sa.Index("ix_touch_recipient", "recipient_id", "settled_at"),
        # It is for `postroad.store.step_page` alone. The condition, which always holds, hides it from other statements:
        # PostgreSQL would choose it for some that have an index of their own.
        PartialIndex("ix_touch_step_state", "step_id", "state", "id", where="claim >= 0"),
        PartialIndex("ix_touch_undecided", "state", "cause", "campaign_id", "id", where="state IN ('dead', 'unknown')"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    campaign_id: int = Field(foreign_key="campaign.id", sa_type=BIG_ID)
    step_id: int = Field(foreign_key="step.id", sa_type=BIG_ID)
    recipient_id: int = Field(foreign_key="recipient.id", sa_type=BIG_ID)
    state: TouchState = Field(sa_type=StrEnumType(TouchState))
    due_at: datetime = Field(sa_type=UtcDateTime)
    first_due_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when it was due before a frequency cap moved that; NULL: due_at"
    )
    sender_id: int | None = Field(default=None, sa_type=BIG_ID, description="sender in place of its campaign's sender")
    claim: int = Field(
        default=0, sa_type=BIG_ID, description="the queue's token of the last claim that put it on the wire"
    )
    reply: str | None = Field(
        default=None, sa_type=sa.String(500), description="last reply of the receiver, or why it ended"
    )
    next_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="time of the next attempt, if it is deferred"
    )
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime, description="when it ended")
    follow_up: bool = Field(
        default=False,
        sa_column_kwargs={"server_default": sa.false()},
        description="once it is accepted or skipped, the next step is to be taken",
    )
    version: int = Field(
        default=1,
        sa_column_kwargs={"server_default": sa.text("1")},
        description="version of its step that its message was made of, once it was on the wire",
    )
    enrolled: bool = Field(
        default=False,
        sa_column_kwargs={"server_default": sa.false()},
        description="if it fails, its enrolment is to exit",
    )
    request_id: int = Field(
        default=0,
        sa_type=sa.BigInteger,
        sa_column_kwargs={"server_default": sa.text("0")},
        description="the request of a program that it is made for; 0: its campaign planned it; -n: for the n-th entry",
    )
    variant: str | None = Field(
        default=None, sa_type=sa.String(64), description="variant of its step; NULL: none, or not decided yet"
    )
    waited_until: datetime | None = Field(
        default=None, sa_type=UtcDateTime, description="when it may leave after it waited for its variant"
    )
    share: int | None = Field(
        default=None, sa_type=sa.SmallInteger, description="share of a rollout with which it is released, from 1"
    )
    cause: str = Field(
        default="",
        sa_type=sa.String(100),
        sa_column_kwargs={"server_default": sa.text("''")},
        description="why it is dead or unknown; empty: not recorded, or another state",
    )


class DeliveryEvent(StoredRow, table=True):
    """One thing that happened to a touch."""

    __tablename__ = "delivery_event"
    __table_args__ = (
        PartialIndex("ix_delivery_event_words", "words", "blame", "at", where="words IS NOT NULL"),
        PartialIndex(
            "ix_delivery_event_receiver", "sender_id", "provider", "state", "at", "id", where="sender_id IS NOT NULL"
        ),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    uid: str = Field(sa_type=sa.String(80), unique=True, description="unique id of the queue's event")
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
        default=None,
        sa_type=sa.String(32),
        description="key of a refusal that is about the sender if many recipients get it",
    )
    campaign_id: int | None = Field(
        default=None, sa_type=sa.BigInteger, description="NULL: not an outcome, or older than the traffic counts"
    )
    sender_id: int | None = Field(default=None, sa_type=sa.BigInteger, description="as campaign_id")
    provider: str | None = Field(
        default=None, sa_type=sa.String(100), description="mailbox provider at that time; as campaign_id"
    )


class Overflow(StoredRow, table=True):
    """One touch that was given to another sender: the sender before, the sender after, and why."""

    __tablename__ = "overflow"
    __table_args__ = (
        sa.Index("ix_overflow_step", "step_id", "id"),
        sa.Index("ix_overflow_move", "step_id", "from_sender_id", "sender_id", "why", "id"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_ID)
    touch_id: int = Field(sa_type=BIG_ID, foreign_key="touch.id", index=True)
    from_sender_id: int = Field(sa_type=BIG_ID, foreign_key="sender.id")
    sender_id: int = Field(sa_type=BIG_ID, foreign_key="sender.id")
    at: datetime = Field(sa_type=UtcDateTime)
    why: str = Field(sa_type=sa.String(200))
    step_id: int | None = Field(default=None, sa_type=BIG_ID, description="of the touch")


ENTRY_OF_TOUCH = "CASE WHEN touch.request_id < 0 THEN -touch.request_id ELSE 1 END"
"""SQL expression of the number of the entry into a journey that a touch belongs to: see `request_of_entry`."""


def request_of_entry(entry: int) -> int:
    """Return the `Touch.request_id` of the touches of an entry into a journey: 0 for the first, -n for the n-th."""
    return 0 if entry == 1 else -entry


SENDER_OF_TOUCH = "COALESCE(touch.sender_id, campaign.sender_id)"
"""SQL expression of the id of a touch's sender, in a statement that joins the touch's campaign."""


LEAVES_AT = "CASE WHEN touch.waited_until > touch.due_at THEN touch.waited_until ELSE touch.due_at END"
"""SQL expression of the time at which a touch may leave: when it is due, or later if it waited for its variant."""

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)

DUE = (
    "SELECT id, recipient_id FROM touch WHERE campaign_id = :campaign_id AND state = 'planned' AND due_at <= :until "
    "AND (due_at, id) > (:since, :after_id) ORDER BY due_at, id LIMIT :limit"
)
"""SQL of a campaign's next due touches. It follows the index of planned touches from a given place, so it reads only
what it returns, however many touches come before.
"""
DUE_TYPES = [sa.bindparam(name, type_=UtcDateTime()) for name in ("until", "since")]


def due_values(
    connection: sa.Connection, campaign_id: int, *, after_id: int, until: datetime, limit: int
) -> dict[str, Any]:
    """Return the parameters of `DUE`: touches due until a time, after ``after_id`` (0: all)."""
    due_at = sa.text("SELECT due_at FROM touch WHERE id = :after_id").columns(sa.column("due_at", UtcDateTime()))
    since = connection.execute(due_at, {"after_id": after_id}).scalar() or _BEFORE_ALL
    return {"campaign_id": campaign_id, "after_id": after_id, "since": since, "until": until, "limit": limit}


def due_touches(
    connection: sa.Connection, campaign_id: int, *, after_id: int, until: datetime, limit: int
) -> list[int]:
    """Return planned touches that are due, in order of their time. ``after_id``: the last touch of the page before."""
    values = due_values(connection, campaign_id, after_id=after_id, until=until, limit=limit)
    return list(connection.execute(sa.text(DUE).bindparams(*DUE_TYPES), values).scalars())


UNSUBSCRIBE, REPLY, COMPLAINT = "unsubscribe", "reply", "complaint"
"""Causes of delivery events that report what the recipient did. Their state is that of the touch at that time."""

IS_DELIVERY = f"COALESCE(e.cause, '') NOT IN ('{UNSUBSCRIBE}', '{REPLY}', '{COMPLAINT}')"
"""SQL condition on a delivery event ``e``: it reports what became of a message, not what its recipient did."""


def record_unsubscribe(connection: sa.Connection, touch_id: int, source: str, now: datetime) -> bool:
    """Record that the recipient of a touch unsubscribed. Idempotent. Returns whether this was the first time."""
    statement = sa.text(
        "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause, reply) "
        "SELECT :uid, id, state, :now, 0, 'unsubscribe', :source FROM touch WHERE id = :id ON CONFLICT (uid) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    values = {"uid": f"{touch_id}:unsubscribe", "id": touch_id, "now": now, "source": source}
    first = connection.execute(statement, values).rowcount > 0
    if first:
        record_outcomes(connection, [touch_id], VariantOutcome.UNSUBSCRIBED, now)
    return first


def record_reply(connection: sa.Connection, touch_id: int, digest: str, now: datetime) -> None:
    """Record that the recipient of a touch replied. Idempotent for the digest of the mail."""
    _record_act(connection, touch_id, REPLY, f"{REPLY}:{digest}", now)


def record_complaint(connection: sa.Connection, touch_id: int, digest: str, now: datetime) -> None:
    """Record that the recipient of a touch complained. Idempotent for the digest of the report and the touch."""
    _record_act(connection, touch_id, COMPLAINT, f"{COMPLAINT}:{digest}", now)


def _record_act(connection: sa.Connection, touch_id: int, cause: str, uid: str, now: datetime) -> None:
    statement = sa.text(
        "INSERT INTO delivery_event (uid, touch_id, state, at, attempt, cause) "
        "SELECT :uid, id, state, :now, 0, :cause FROM touch WHERE id = :id ON CONFLICT (uid) DO NOTHING"
    ).bindparams(sa.bindparam("now", type_=UtcDateTime()))
    connection.execute(statement, {"uid": uid, "id": touch_id, "now": now, "cause": cause})
    outcome = VariantOutcome.REPLIED if cause == REPLY else VariantOutcome.COMPLAINED
    record_outcomes(connection, [touch_id], outcome, now)


def delivery_events(connection: sa.Connection, touch_id: int) -> list[sa.Row[tuple[object, ...]]]:
    """Return what happened to one touch, the newest first: at, state, attempt, cause, reply."""
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
