"""What a person may do to mail that is on its way: pause, resume, cancel, replay, rebuild.

Each is written to the ledger first, where it holds at once; the queue follows, so that it does no idle work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlmodel import col

from postroad.delivery.job import WARMUP_QUEUE, job_id, read_touch
from postroad.delivery.record import Recorder
from postroad.delivery.shaping.file import Shaping
from postroad.delivery.submit import NOBODY, Warming, enqueue_touches, plan_of, touch_rows
from postroad.errors import StateError
from postroad.queue import Done, JobState, Queue
from postroad.store import ledger
from postroad.store.campaign import Campaign, CampaignState, find_campaign, record_pause, set_state
from postroad.store.ending import cancel_waiting
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState, hold_unknown
from postroad.store.touch_count import count_in_progress
from postroad.store.touch_page import touch_pages

CHUNK = 1_000

_IN_PROGRESS = (TouchState.QUEUED, TouchState.DEFERRED, TouchState.SENDING)
"""States of touches that have a job, unless the queue lost it."""


async def pause(engine: sa.Engine, queue: Queue, name: str, *, by: str, now: datetime) -> None:
    """Let nothing more of a campaign leave. What is on the wire finishes.

    Args:
        by: Who pauses it, in words, such as "`postroad campaign pause`".

    Raises:
        StateError: The campaign does not run.
    """

    def write_pause() -> None:
        with write(engine) as connection:
            campaign_id = _move_campaign(connection, name, CampaignState.PAUSED, (CampaignState.RUNNING,))
            record_pause(connection, campaign_id, by=by, run_id=None, now=now)

    await asyncio.to_thread(write_pause)
    await queue.pause_group(name)


async def resume(engine: sa.Engine, queue: Queue, name: str) -> None:
    """Let a paused campaign go on.

    Raises:
        StateError: The campaign is not paused.
    """

    def write_resume() -> None:
        with write(engine) as connection:
            _move_campaign(connection, name, CampaignState.RUNNING, (CampaignState.PAUSED,))

    await asyncio.to_thread(write_resume)
    await queue.resume_group(name)


async def cancel(engine: sa.Engine, queue: Queue, name: str, now: datetime) -> int:
    """End a campaign for good, and every touch of it that is not on the wire. Returns how many. Raises StateError."""
    cancelled = await asyncio.to_thread(_cancel, engine, name, now)
    await queue.cancel_group(name, "campaign cancelled")
    return cancelled


def _move_campaign(connection: sa.Connection, name: str, state: CampaignState, allowed: Sequence[CampaignState]) -> int:
    campaign = find_campaign(connection, name, for_update=True)
    assert campaign.id is not None  # noqa: S101  (read from its table)
    if campaign.state not in allowed:
        raise StateError(
            f"campaign {name} is {campaign.state}, so it cannot become {state}",
            remedy=f"`postroad campaign status {name}` shows how it stands.",
        )
    set_state(connection, campaign.id, state)
    return campaign.id


def _cancel(engine: sa.Engine, name: str, now: datetime) -> int:
    with write(engine) as connection:
        # Also one that is cancelled: an earlier call may have been interrupted.
        allowed = (CampaignState.DRAFT, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.CANCELLED)
        campaign_id = _move_campaign(connection, name, CampaignState.CANCELLED, allowed)
        over = sa.update(Campaign).where(col(Campaign.id) == campaign_id, col(Campaign.finished_at).is_(None))
        connection.execute(over.values(finished_at=now))
    return cancel_waiting(engine, campaign_id, now)


async def cancel_touches(engine: sa.Engine, queue: Queue, ids: Sequence[str], now: datetime) -> int:
    """End single touches that are not on the wire. Returns how many. Raises UsageError."""
    touch_ids = [read_touch(id_) for id_ in ids]
    cancelled = await asyncio.to_thread(_write, engine, ledger.cancel_touches, touch_ids, now)
    await queue.cancel([job_id(touch_id) for touch_id in sorted(cancelled)], "cancelled by hand")
    return len(cancelled)


async def reschedule_touches(engine: sa.Engine, queue: Queue, ids: Sequence[str], due_ms: int) -> int:
    """Let single touches that are scheduled go at another time. Returns how many. Raises UsageError."""
    by_id = {job_id(read_touch(id_)): read_touch(id_) for id_ in ids}
    states = await queue.states(list(by_id))
    scheduled = [id_ for id_, state in zip(by_id, states, strict=True) if state is JobState.SCHEDULED]
    until = datetime.fromtimestamp(due_ms / 1000, UTC)
    await asyncio.to_thread(_write, engine, ledger.put_off, [by_id[id_] for id_ in scheduled], until)
    return sum(await queue.reschedule(scheduled, due_ms))


def _write(
    engine: sa.Engine,
    change: Callable[[sa.Connection, Sequence[int], datetime], set[int]],
    touch_ids: Sequence[int],
    when: datetime,
) -> set[int]:
    with write(engine) as connection:
        return change(connection, touch_ids, when)


async def follow_ledger(queue: Queue, ended: Sequence[int], known: Sequence[int]) -> None:
    """Let the queue follow what the ledger says already. Doing so again is harmless.

    Jobs of touches that ended while they waited are cancelled. One that the queue holds as uncertain, although its
    outcome came back by another way, is done.
    """
    await queue.cancel([job_id(touch_id) for touch_id in ended], "ended by what came back")
    ids = [job_id(touch_id) for touch_id in known]
    for id_, state in zip(ids, await queue.states(ids) if ids else [], strict=True):
        if state is JobState.UNCERTAIN:
            with suppress(StateError):  # Somebody else may have resolved it meanwhile.
                await queue.resolve(id_, Done())


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
    warming: Warming = NOBODY,
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
        plan = await asyncio.to_thread(plan_of, engine, campaign, warming, shaping)
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
