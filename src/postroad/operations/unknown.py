"""Touches whose delivery is not known: shown, and settled by somebody who found out.

The ledger is written first, with who said so; the queue follows. What the queue lost is settled in the ledger alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never

import sqlalchemy as sa

from postroad.delivery.job import WARMUP_QUEUE, job_id, read_touch, touch_of
from postroad.delivery.record import GROUP, Recorder
from postroad.delivery.submit import NO_WARMUP, Warming, enqueue_touches, load_submit_plan, touch_rows
from postroad.errors import StateError
from postroad.queue import Dead, Done, JobState, Queue, Release
from postroad.shaping.config import Shaping
from postroad.store.engine import read, write
from postroad.store.ledger import Resolved, TouchState, delivery_events, resolve_unknown
from postroad.store.types import UtcDateTime


class Resolution(StrEnum):
    """What somebody found out about an uncertain job."""

    ACCEPTED = "accepted"
    NOT_SENT = "not-sent"
    DEAD = "dead"


@dataclass(frozen=True, kw_only=True)
class UnknownTouch:
    """One touch that is unknown. ``queued``: the queue holds its job; else only the ledger tells of it."""

    id: str
    address: str
    campaign: str
    since: datetime | None
    said: str | None
    queued: bool


async def list_unknown(engine: sa.Engine, queue: Queue, limit: int) -> list[UnknownTouch]:
    """Every touch that is unknown to the ledger or to the queue, the oldest first."""
    held = {job.id: job for job in await queue.uncertain(limit)}
    seeds = queue.name == WARMUP_QUEUE
    rows = await asyncio.to_thread(_unknown, engine, [touch_of(id_) for id_ in held], limit, seeds)
    found = [
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
    return sorted(found, key=lambda doubt: (doubt.since or datetime.min.replace(tzinfo=UTC), doubt.id))


def _unknown(
    engine: sa.Engine, touch_ids: Sequence[int], limit: int, seeds: bool
) -> Sequence[sa.Row[tuple[object, ...]]]:
    statement = (
        sa.text(
            "SELECT touch.id, recipient.address, campaign.name AS campaign, touch.settled_at, touch.reply FROM touch "
            "JOIN recipient ON recipient.id = touch.recipient_id JOIN campaign ON campaign.id = touch.campaign_id "
            "WHERE (touch.state = 'unknown' OR touch.id IN :held) AND campaign.warmup = :seeds "
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
    recorder: Recorder,
    id_: str,
    resolution: Resolution,
    *,
    by: str,
    now: datetime,
    expire_ms: int,
    warming: Warming = NO_WARMUP,
    shaping: Shaping | None = None,
) -> None:
    """Settle one unknown touch. Raises StateError when it is not unknown; UsageError for what is no touch's id."""
    touch_id = read_touch(id_)
    # What the queue knows and the ledger does not yet would undo what is said now.
    await recorder.drain()
    resolved = await asyncio.to_thread(_resolve, engine, touch_id, resolution, by, now)
    [state] = await queue.states([id_])
    if state is JobState.UNCERTAIN:
        await queue.resolve(id_, _verdict(resolution, by))
    elif state in (None, JobState.REMEMBERED) and resolution is Resolution.NOT_SENT:
        # The ledger has said what this id may do; the queue's own memory of it is over.
        await queue.acknowledge(GROUP, [], forget=[id_])
        plan = await asyncio.to_thread(load_submit_plan, engine, resolved.campaign, warming, shaping)
        await enqueue_touches(queue, plan, await asyncio.to_thread(_rows, engine, touch_id), expire_ms)


async def settle_unknown(
    engine: sa.Engine,
    queue: Queue,
    recorder: Recorder,
    touch_id: int,
    state: TouchState,
    *,
    said: str,
    by: str,
    now: datetime,
) -> bool:
    """Settle an unknown touch by what came back about it: ``accepted``, ``bounced`` or ``dead``. Again: nothing more.

    ``said``: in the receiver's words; ``by``: what brought them, as ``dsn`` or ``ses``. False: the touch is not
    unknown, and nothing was changed. What only a worker knows of so far cannot be settled yet: try again later.
    """
    if state not in (TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.DEAD):
        raise ValueError(f"a touch that is unknown cannot become {state} by what came back")
    if not await asyncio.to_thread(_settle, engine, touch_id, state, said, by, now):
        if await queue.states([job_id(touch_id)]) != [JobState.UNCERTAIN]:
            return False
        # The queue holds it already, and the ledger has not heard of it yet.
        await recorder.drain()
        if not await asyncio.to_thread(_settle, engine, touch_id, state, said, by, now):
            return False
    if await queue.states([job_id(touch_id)]) == [JobState.UNCERTAIN]:
        verdict = Done() if state is TouchState.ACCEPTED else Dead(cause=f"{state} by {by}", error=said)
        with suppress(StateError):  # Somebody resolved it at the same moment; the ledger has the first word.
            await queue.resolve(job_id(touch_id), verdict)
    return True


def _settle(engine: sa.Engine, touch_id: int, state: TouchState, said: str, by: str, now: datetime) -> bool:
    with write(engine) as connection:
        return resolve_unknown(connection, touch_id, state, by=by, now=now, said=said) is not None


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


def _resolve(engine: sa.Engine, touch_id: int, resolution: Resolution, by: str, now: datetime) -> Resolved:
    with write(engine) as connection:
        resolved = resolve_unknown(connection, touch_id, _STATES[resolution], by=by, now=now)
    if resolved is None:
        raise StateError(
            f"touch {touch_id} is not unknown, or no longer",
            remedy="`postroad unknown list` names those that are; a recorder must be running.",
        )
    return resolved


def _rows(engine: sa.Engine, touch_id: int) -> Sequence[sa.Row[tuple[object, ...]]]:
    with read(engine) as connection:
        return touch_rows(connection, [touch_id])


def events_of(engine: sa.Engine, id_: str) -> list[dict[str, object]]:
    """What the ledger tells of a touch, the newest first. Raises UsageError."""
    with read(engine) as connection:
        rows = delivery_events(connection, read_touch(id_))
    names = ("at", "event", "attempt", "cause", "said")
    return [dict(zip(names, row, strict=True)) for row in rows]


async def resolve_job(queue: Queue, id_: str, resolution: Resolution, *, by: str) -> None:
    """Settle one uncertain job of a queue that has no ledger. Raises StateError when it is not uncertain."""
    await queue.resolve(id_, _verdict(resolution, by))
