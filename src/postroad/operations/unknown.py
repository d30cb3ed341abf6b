"""Lists touches of which it is unknown whether they were sent, and resolves them by an operator's decision.

The ledger is written first, with the operator's name, and the queue follows. A touch that the queue has lost is
resolved in the ledger alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never

import sqlalchemy as sa

from postroad.delivery.job import WARMUP_QUEUE, job_id, parse_touch_id, touch_of
from postroad.delivery.recorder import GROUP
from postroad.delivery.submit import SubmitOptions, enqueue_by_id, load_submit_plan
from postroad.errors import StateError
from postroad.queue import Dead, Done, JobState, Queue, Release
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, delivery_events
from postroad.store.touches.results import resolve_unknown
from postroad.store.types import UtcDateTime


class Resolution(StrEnum):
    """What an operator found out about an uncertain job."""

    ACCEPTED = "accepted"
    NOT_SENT = "not-sent"
    DEAD = "dead"


class NotUnknownError(StateError):
    """A touch is not unknown, so it cannot be resolved."""


@dataclass(frozen=True, kw_only=True)
class UnknownTouch:
    """A touch that is unknown. ``said``: the last reply. ``queued``: the queue has its job too, not only the ledger."""

    id: str
    address: str
    campaign: str
    since: datetime | None
    said: str | None
    queued: bool


async def list_unknown(engine: sa.Engine, queue: Queue, limit: int) -> list[UnknownTouch]:
    """Return touches that are unknown to the ledger or uncertain in the queue, the oldest first.

    Args:
        engine: The ledger's database.
        queue: A queue of mail.
        limit: Touches to return, at most.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    held = {job.id: job for job in await queue.uncertain(limit)}
    seeds = queue.name == WARMUP_QUEUE
    rows = await asyncio.to_thread(_unknown, engine, [touch_of(id_) for id_ in held], limit, seeds)
    touches = [
        UnknownTouch(
            id=job_id(row.id),
            address=row.address,
            campaign=row.campaign,
            since=row.settled_at or datetime.fromtimestamp(held[job_id(row.id)].since_ms / 1000, UTC),
            said=row.reply,
            queued=job_id(row.id) in held,
        )
        for row in rows
    ]
    return sorted(touches, key=lambda touch: (touch.since or datetime.min.replace(tzinfo=UTC), touch.id))


def _unknown(
    engine: sa.Engine, touch_ids: Sequence[int], limit: int, seeds: bool
) -> Sequence[sa.Row[tuple[object, ...]]]:
    statement = (
        sa.text(
            "SELECT touch.id, recipient.address, campaign.name AS campaign, touch.settled_at, touch.reply FROM touch "
            "JOIN recipient ON recipient.id = touch.recipient_id JOIN campaign ON campaign.id = touch.campaign_id "
            "WHERE touch.id IN "
            "(SELECT id FROM touch WHERE state = 'unknown' UNION SELECT id FROM touch WHERE id IN :held) "
            "AND campaign.warmup = :seeds "
            "ORDER BY touch.settled_at, touch.id LIMIT :limit"
        )
        .bindparams(sa.bindparam("held", expanding=True))
        .columns(
            sa.column("id", sa.Integer()),
            sa.column("address", sa.Text()),
            sa.column("campaign", sa.Text()),
            sa.column("settled_at", UtcDateTime()),
            sa.column("reply", sa.Text()),
        )
    )
    with read(engine) as connection:
        return connection.execute(statement, {"held": list(touch_ids), "limit": limit, "seeds": seeds}).all()


async def resolve_touch(
    engine: sa.Engine,
    queue: Queue,
    id_: str,
    resolution: Resolution,
    options: SubmitOptions,
    *,
    by: str,
    now: datetime,
) -> None:
    """Resolve one unknown touch.

    The queue's events must have been recorded before: an older one would overwrite the resolution.

    Args:
        engine: The ledger's database.
        queue: A queue of mail.
        id_: Id of the touch.
        resolution: What became of it.
        options: What the settings say of jobs.
        by: Who found out; kept in the ledger.
        now: The time.

    Raises:
        NotUnknownError: It is not unknown.
        UsageError: The id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
    """
    touch_id = parse_touch_id(id_)
    campaign = await asyncio.to_thread(_resolve, engine, touch_id, resolution, by, now)
    [state] = await queue.states([id_])
    if state is JobState.UNCERTAIN:
        await resolve_job(queue, id_, resolution, by=by)
    elif state in (None, JobState.REMEMBERED) and resolution is Resolution.NOT_SENT:
        # The ledger has decided, so the queue must no longer reject this id as a duplicate.
        await queue.acknowledge(GROUP, [], forget=[id_])
        plan = await asyncio.to_thread(load_submit_plan, engine, campaign, options)
        await enqueue_by_id(engine, queue, plan, [touch_id])


def _verdict(resolution: Resolution, by: str) -> Done | Release | Dead:
    match resolution:
        case Resolution.ACCEPTED:
            return Done()
        case Resolution.NOT_SENT:
            return Release()
        case Resolution.DEAD:
            return Dead(cause="resolved", error=f"given up by {by}")
        case other:
            assert_never(other)


_STATES = {
    Resolution.ACCEPTED: TouchState.ACCEPTED,
    Resolution.NOT_SENT: TouchState.QUEUED,
    Resolution.DEAD: TouchState.DEAD,
}


def _resolve(engine: sa.Engine, touch_id: int, resolution: Resolution, by: str, now: datetime) -> str:
    with write(engine) as connection:
        campaign = resolve_unknown(connection, touch_id, _STATES[resolution], by=by, now=now)
    if campaign is None:
        raise NotUnknownError(
            f"touch {touch_id} is not unknown",
            remedy="`postroad unknown list` names those that are; a recorder must be running.",
        )
    return campaign


def touch_events(engine: sa.Engine, id_: str) -> list[dict[str, object]]:
    """Return the events of a touch in the ledger, the newest first.

    Raises:
        UsageError: The id is not that of a touch.
    """
    with read(engine) as connection:
        rows = delivery_events(connection, parse_touch_id(id_))
    names = ("at", "event", "attempt", "cause", "said")
    return [dict(zip(names, row, strict=True)) for row in rows]


async def resolve_job(queue: Queue, id_: str, resolution: Resolution, *, by: str) -> None:
    """Resolve one uncertain job of a queue.

    Args:
        queue: The queue.
        id_: Id of the job.
        resolution: What became of it.
        by: Who found out.

    Raises:
        StateError: It is not uncertain.
    """
    await queue.resolve(id_, _verdict(resolution, by))
