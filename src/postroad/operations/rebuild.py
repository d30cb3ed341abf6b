"""Makes the jobs of a queue again from the ledger, as after its server was emptied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.delivery.job import WARMUP_QUEUE, job_id
from postroad.delivery.record import Recorder
from postroad.delivery.submit import NO_WARMUP, Warming, enqueue_touches, load_submit_plan, touch_rows
from postroad.queue import Queue
from postroad.shaping.config import Shaping
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, hold_unknown
from postroad.store.touch_count import count_in_progress
from postroad.store.touch_page import touch_pages

_IN_PROGRESS = (TouchState.QUEUED, TouchState.DEFERRED, TouchState.SENDING)
"""States of touches that have a job, unless the queue lost it."""


@dataclass(frozen=True, kw_only=True)
class RebuildResult:
    """What a rebuild found that the ledger holds and the queue did not."""

    looked_at: int
    enqueued: int
    unknown: int


def combine(rebuilt: Sequence[RebuildResult]) -> RebuildResult:
    """Return the sum of several results."""
    return RebuildResult(
        looked_at=sum(each.looked_at for each in rebuilt),
        enqueued=sum(each.enqueued for each in rebuilt),
        unknown=sum(each.unknown for each in rebuilt),
    )


async def rebuild(
    engine: sa.Engine,
    queue: Queue,
    recorder: Recorder,
    *,
    expire_ms: int,
    now: datetime,
    warming: Warming = NO_WARMUP,
    shaping: Shaping | None = None,
) -> RebuildResult:
    """Make the jobs of a queue again from the ledger, as after its server was emptied. Its gates must be set before.

    What waits is enqueued again. What was on the wire, and is known to nobody, becomes unknown: it may have been
    delivered. A worker that still has it in hand reports it later, and that settles it.
    """
    await recorder.drain()
    looked_at = enqueued = unknown = 0
    for campaign, campaign_id, state in await asyncio.to_thread(_launched, engine, _is_of_seeds(queue)):
        if state == CampaignState.PAUSED:
            await queue.pause_group(campaign)
        plan = await asyncio.to_thread(load_submit_plan, engine, campaign, warming, shaping)
        pages = touch_pages(engine, campaign_id)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            touches = [touch for touch in page if touch.state in _IN_PROGRESS]
            looked_at += len(touches)
            known = await queue.states([job_id(touch.id) for touch in touches]) if touches else []
            lost = [touch for touch, state in zip(touches, known, strict=True) if state is None]
            waiting = [touch.id for touch in lost if touch.state != TouchState.SENDING]
            sending = [touch.id for touch in lost if touch.state == TouchState.SENDING]
            if waiting:
                rows = await asyncio.to_thread(_rows, engine, waiting)
                await enqueue_touches(queue, plan, rows, expire_ms)
                enqueued += len(waiting)
            if sending:
                unknown += await asyncio.to_thread(_hold, engine, sending, now)
    return RebuildResult(looked_at=looked_at, enqueued=enqueued, unknown=unknown)


async def missing_jobs(engine: sa.Engine, queue: Queue) -> int:
    """How many touches the ledger has under way and the queue knows nothing of, by their numbers alone.

    Few may seem so while mail is moving. `rebuild` finds out which they are.
    """
    before = await asyncio.to_thread(_in_progress, engine, _is_of_seeds(queue))
    stats = await queue.stats()
    after = await asyncio.to_thread(_in_progress, engine, _is_of_seeds(queue))
    unrecorded = max((group.pending + group.unread for group in stats.groups), default=stats.events)
    # Handed over or recorded between the looks: only what is under way in both can be missing.
    return max(min(before, after) - stats.queued - stats.scheduled - stats.in_flight - unrecorded, 0)


def _is_of_seeds(queue: Queue) -> bool:
    """Whether a queue's touches are those to seed lists."""
    return queue.name == WARMUP_QUEUE


def _in_progress(engine: sa.Engine, seeds: bool) -> int:
    with read(engine) as connection:
        return count_in_progress(connection, seeds=seeds)


def _launched(engine: sa.Engine, seeds: bool) -> list[tuple[str, int, str]]:
    with read(engine) as connection:
        statement = sa.text(
            "SELECT name, id, state FROM campaign WHERE state IN ('running', 'paused') AND warmup = :seeds ORDER BY id"
        )
        return [(row.name, row.id, row.state) for row in connection.execute(statement, {"seeds": seeds})]


def _rows(engine: sa.Engine, touch_ids: Sequence[int]) -> Sequence[sa.Row[tuple[object, ...]]]:
    with read(engine) as connection:
        return touch_rows(connection, touch_ids)


def _hold(engine: sa.Engine, touch_ids: Sequence[int], now: datetime) -> int:
    with write(engine) as connection:
        return hold_unknown(connection, touch_ids, now)
