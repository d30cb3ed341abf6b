"""Lists, replays and drops dead letters of a queue and of the ledger, also those that the queue has lost."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from postroad.delivery.job import MAIL_QUEUES, WARMUP_QUEUE, job_id, parse_touch_id
from postroad.delivery.recorder import GROUP
from postroad.delivery.submit import SubmitOptions, enqueue_by_id, load_submit_plan
from postroad.queue import DeadLetter, JobState, Queue
from postroad.store.engine import read, write
from postroad.store.touches.ending import drop_dead
from postroad.store.touches.sending import requeue_dead
from postroad.store.types import UtcDateTime

CHUNK = 500
NO_CAUSE = "not recorded"


@dataclass(frozen=True, kw_only=True)
class DeadGroup:
    """Dead letters of one cause. ``newest_ms``: Unix time in ms at which the newest died; ``example``: its error."""

    cause: str
    letters: int
    newest_ms: int
    example: str


async def list_dead_letters(
    engine: sa.Engine, queue: Queue, *, cause: str | None = None, until_ms: int | None = None
) -> list[DeadLetter]:
    """Return dead letters of a queue and those that only the ledger has, the newest first.

    A queue whose server lost its data has no letters of jobs that died before. The ledger has the touch, with its
    cause. Such a letter names its campaign as its lane, and has no payload.

    Args:
        engine: The ledger's database.
        queue: The queue.
        cause: Only letters of this cause. None: of all causes.
        until_ms: Only letters of jobs that died no later, Unix time in ms. None: all.

    Returns:
        The letters.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    letters = await _queue_letters(queue)
    if queue.name in MAIL_QUEUES:
        known = {letter.id for letter in letters}
        recorded = await asyncio.to_thread(_ledger_letters, engine, queue.name == WARMUP_QUEUE)
        letters += [letter for letter in recorded if letter.id not in known]
    matching = [
        letter for letter in letters if (until_ms is None or letter.at_ms <= until_ms) and cause in (None, letter.cause)
    ]
    return sorted(matching, key=lambda letter: letter.at_ms, reverse=True)


async def _queue_letters(queue: Queue) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    cursor: int | None = 0
    while cursor is not None:
        page, cursor = await queue.dead_letters(count=CHUNK, cursor=cursor)
        letters += page
    return letters


# Reads the index of dead touches in its order, campaign by campaign, and no other touches.
_DEAD = """
SELECT touch.id, touch.settled_at, touch.reply, touch.claim,
  (SELECT cause FROM delivery_event WHERE delivery_event.touch_id = touch.id AND delivery_event.state = 'dead'
   ORDER BY delivery_event.at DESC, delivery_event.id DESC LIMIT 1) AS cause,
  (SELECT max(attempt) FROM delivery_event WHERE delivery_event.touch_id = touch.id) AS attempt
FROM touch WHERE touch.campaign_id = :campaign_id AND touch.state = 'dead' AND touch.id > :cursor
ORDER BY touch.id LIMIT :chunk
"""
_COLUMNS = (
    sa.column("id", sa.Integer()),
    sa.column("settled_at", UtcDateTime()),
    sa.column("reply", sa.Text()),
    sa.column("claim", sa.Integer()),
    sa.column("cause", sa.Text()),
    sa.column("attempt", sa.Integer()),
)


def _ledger_letters(engine: sa.Engine, seeds: bool) -> list[DeadLetter]:
    """Return dead touches of all campaigns that were not cancelled."""
    statement = sa.text(_DEAD).columns(*_COLUMNS)
    campaigns = sa.text(
        "SELECT id, name FROM campaign WHERE state IN ('running', 'paused', 'finished') AND warmup = :seeds ORDER BY id"
    )
    letters: list[DeadLetter] = []
    with read(engine) as connection:
        for campaign_id, name in connection.execute(campaigns, {"seeds": seeds}).all():
            cursor: int | None = 0
            while cursor is not None:
                values = {"campaign_id": campaign_id, "cursor": cursor, "chunk": CHUNK}
                rows = connection.execute(statement, values).all()
                letters += [_letter(row, name) for row in rows]
                cursor = rows[-1].id if len(rows) == CHUNK else None
    return letters


def _letter(row: sa.Row[Any], campaign: str) -> DeadLetter:
    settled_at: datetime = row.settled_at or datetime.fromtimestamp(0, UTC)
    return DeadLetter(
        id=job_id(row.id),
        at_ms=int(settled_at.timestamp() * 1000),
        lane=campaign,
        token=row.claim,
        attempt=row.attempt or 0,
        cause=row.cause or NO_CAUSE,
        error=row.reply or "",
        payload=b"",
    )


def group_by_cause(letters: Sequence[DeadLetter]) -> list[DeadGroup]:
    """Return dead letters by cause, the largest group first."""
    by_cause: defaultdict[str, list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        by_cause[letter.cause].append(letter)
    groups = [
        DeadGroup(cause=cause, letters=len(group), newest_ms=newest.at_ms, example=newest.error)
        for cause, group in by_cause.items()
        for newest in [max(group, key=lambda letter: letter.at_ms)]
    ]
    return sorted(groups, key=lambda group: (-group.letters, group.cause))


async def replay(engine: sa.Engine, queue: Queue, ids: Sequence[str], options: SubmitOptions, *, now: datetime) -> int:
    """Send dead letters again.

    For a queue of mail the ledger decides: touches that bounced are skipped. A touch that the queue has lost gets a new
    job, which expires ``options.expire_ms`` from now. If the call fails halfway, the ledger records the rest as queued,
    and `postroad queue rebuild` makes its jobs.

    Args:
        engine: The ledger's database.
        queue: The queue that they died in.
        ids: Ids of their jobs.
        options: What the settings say of jobs.
        now: The time.

    Returns:
        How many are sent again.

    Raises:
        UsageError: An id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
    """
    replayed = 0
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        if queue.name in MAIL_QUEUES:
            replayed += await _replay_touches(engine, queue, [parse_touch_id(id_) for id_ in chunk], options, now)
        else:
            replayed += await queue.replay(chunk)
    return replayed


async def _replay_touches(
    engine: sa.Engine, queue: Queue, touch_ids: Sequence[int], options: SubmitOptions, now: datetime
) -> int:
    campaigns = await asyncio.to_thread(_requeue, engine, touch_ids)
    requeued = sorted(campaigns)
    states = dict(zip(requeued, await queue.states([job_id(touch_id) for touch_id in requeued]), strict=True))
    dead = [job_id(touch_id) for touch_id, state in states.items() if state is JobState.DEAD]
    replayed = await queue.replay(dead) if dead else 0
    lost = [touch_id for touch_id, state in states.items() if state in (None, JobState.REMEMBERED)]
    # The ledger has decided, so the queue must no longer reject these ids as duplicates.
    await queue.acknowledge(GROUP, [], forget=[job_id(touch_id) for touch_id in lost])
    by_campaign: defaultdict[str, list[int]] = defaultdict(list)
    for touch_id in lost:
        by_campaign[campaigns[touch_id]].append(touch_id)
    for campaign, of_campaign in by_campaign.items():
        plan = await asyncio.to_thread(load_submit_plan, engine, campaign, options)
        await enqueue_by_id(engine, queue, plan, of_campaign, since_ms=int(now.timestamp() * 1000))
    return replayed + len(lost)


def _requeue(engine: sa.Engine, touch_ids: Sequence[int]) -> dict[int, str]:
    with write(engine) as connection:
        return requeue_dead(connection, touch_ids)


async def drop(engine: sa.Engine, queue: Queue, ids: Sequence[str], *, by: str, now: datetime) -> int:
    """Decide that dead letters are not sent again.

    For a queue of mail the ledger decides: touches that are not dead are skipped, and the others end as cancelled.

    Args:
        engine: The ledger's database.
        queue: The queue that they died in.
        ids: Ids of their jobs.
        by: Who decides; kept in the ledger.
        now: The time.

    Returns:
        How many were dropped.

    Raises:
        UsageError: An id is not that of a touch.
        UnavailableError: The database or the queue is unavailable.
    """
    if queue.name not in MAIL_QUEUES:
        return await queue.drop(ids)
    dropped = 0
    for start in range(0, len(ids), CHUNK):
        touch_ids = [parse_touch_id(id_) for id_ in ids[start : start + CHUNK]]
        ended = await asyncio.to_thread(_drop, engine, touch_ids, by, now)
        await queue.drop([job_id(touch_id) for touch_id in sorted(ended)])
        dropped += len(ended)
    return dropped


def _drop(engine: sa.Engine, touch_ids: Sequence[int], by: str, now: datetime) -> set[int]:
    with write(engine) as connection:
        return drop_dead(connection, touch_ids, by=by, now=now)
