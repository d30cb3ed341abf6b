"""Rebuilds the jobs of a queue from the ledger, as after its server lost them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.delivery.job import WARMUP_QUEUE, job_id
from postroad.delivery.recorder import Recorder
from postroad.delivery.submit import SubmitOptions, enqueue_by_id, load_submit_plan
from postroad.operations.campaigns import sync_pause
from postroad.queue import Queue
from postroad.store.campaign import CampaignState
from postroad.store.engine import read, write
from postroad.store.ledger import IN_PROGRESS, TouchState
from postroad.store.touch_count import count_in_progress
from postroad.store.touch_page import touch_pages
from postroad.store.touches.sending import mark_unknown


@dataclass(frozen=True, kw_only=True)
class RebuildResult:
    """What a rebuild did, in touches.

    ``looked_at``: in progress by the ledger. ``enqueued``: waiting ones whose jobs were lost. ``unknown``: lost on the
    wire.
    """

    looked_at: int
    enqueued: int
    unknown: int


def combine(results: Sequence[RebuildResult]) -> RebuildResult:
    """Return the sum of several results."""
    return RebuildResult(
        looked_at=sum(result.looked_at for result in results),
        enqueued=sum(result.enqueued for result in results),
        unknown=sum(result.unknown for result in results),
    )


async def rebuild(
    engine: sa.Engine, queue: Queue, recorder: Recorder, options: SubmitOptions, *, now: datetime
) -> RebuildResult:
    """Make the jobs of a queue again from the ledger. Its gates must be set before.

    Waiting touches are enqueued again. A touch that was on the wire and has no job becomes unknown: it may have been
    delivered. A worker that is still sending it reports the outcome later, which resolves it.

    Args:
        engine: The ledger's database.
        queue: A queue of mail.
        recorder: Drains the queue's events first.
        options: What the settings say of jobs.
        now: The time.

    Returns:
        What was rebuilt.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    await recorder.drain()
    looked_at = enqueued = unknown = 0
    for campaign, campaign_id, _ in await asyncio.to_thread(_launched, engine, _is_of_seeds(queue)):
        await sync_pause(engine, queue, campaign)
        plan = await asyncio.to_thread(load_submit_plan, engine, campaign, options)
        pages = touch_pages(engine, campaign_id)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            touches = [touch for touch in page if touch.state in IN_PROGRESS]
            looked_at += len(touches)
            known = await queue.states([job_id(touch.id) for touch in touches]) if touches else []
            lost = [touch for touch, state in zip(touches, known, strict=True) if state is None]
            waiting = [touch.id for touch in lost if touch.state != TouchState.SENDING]
            sending = [touch.id for touch in lost if touch.state == TouchState.SENDING]
            if waiting:
                await enqueue_by_id(engine, queue, plan, waiting)
                enqueued += len(waiting)
            if sending:
                unknown += await asyncio.to_thread(_mark_unknown, engine, sending, now)
    return RebuildResult(looked_at=looked_at, enqueued=enqueued, unknown=unknown)


async def missing_jobs(engine: sa.Engine, queue: Queue) -> int:
    """Estimate the number of in-progress touches without a job, by comparing counts.

    It may overestimate by a few while mail is moving. `rebuild` determines which touches they are.

    Args:
        engine: The ledger's database.
        queue: A queue of mail.

    Returns:
        The estimate, in touches.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    before = await asyncio.to_thread(_in_progress, engine, _is_of_seeds(queue))
    stats = await queue.stats()
    after = await asyncio.to_thread(_in_progress, engine, _is_of_seeds(queue))
    unrecorded = max((group.pending + group.unread for group in stats.groups), default=stats.events)
    # Touches may be submitted or recorded between the two counts: the smaller count is a safe bound.
    return max(min(before, after) - stats.queued - stats.scheduled - stats.in_flight - unrecorded, 0)


def _is_of_seeds(queue: Queue) -> bool:
    """Return whether the touches of a queue go to seed lists."""
    return queue.name == WARMUP_QUEUE


def _in_progress(engine: sa.Engine, seeds: bool) -> int:
    with read(engine) as connection:
        return count_in_progress(connection, seeds=seeds)


async def sync_pauses(engine: sa.Engine, queue: Queue) -> None:
    """Pause or resume the jobs of every launched campaign in a queue of mail, as the ledger has the campaigns.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    paused = frozenset((await queue.stats()).paused_groups)
    for campaign, _, state in await asyncio.to_thread(_launched, engine, _is_of_seeds(queue)):
        if (state == CampaignState.PAUSED) != (campaign in paused):
            await sync_pause(engine, queue, campaign)


def _launched(engine: sa.Engine, seeds: bool) -> list[tuple[str, int, str]]:
    with read(engine) as connection:
        statement = sa.text(
            "SELECT name, id, state FROM campaign WHERE state IN ('running', 'paused') AND warmup = :seeds ORDER BY id"
        )
        return [(row.name, row.id, row.state) for row in connection.execute(statement, {"seeds": seeds})]


def _mark_unknown(engine: sa.Engine, touch_ids: Sequence[int], now: datetime) -> int:
    with write(engine) as connection:
        return mark_unknown(connection, touch_ids, now)
