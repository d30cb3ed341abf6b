"""Dead letters of a queue, and of its ledger: listed together, and replayed whether or not the queue still has them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from postroad.delivery.job import MAIL_QUEUES, WARMUP_QUEUE, job_id, read_touch
from postroad.delivery.record import GROUP
from postroad.delivery.submit import NO_WARMUP, Warming, enqueue_touches, load_submit_plan, touch_rows
from postroad.queue import DeadLetter, JobState, Queue
from postroad.shaping.config import Shaping
from postroad.store.engine import read, write
from postroad.store.ledger import revive
from postroad.store.types import UtcDateTime

CHUNK = 500
NO_CAUSE = "not recorded"


@dataclass(frozen=True, kw_only=True)
class DeadGroup:
    """Dead letters of one cause: how many, when the newest died, and its last error."""

    cause: str
    letters: int
    newest_ms: int
    example: str


async def dead_letters_of(
    engine: sa.Engine, queue: Queue, *, cause: str | None = None, until_ms: int | None = None
) -> list[DeadLetter]:
    """Return dead letters, the newest first: the queue's, and those that only the ledger has.

    ``cause``: only of this one. ``until_ms``: only what died no later. A queue whose server lost its data has no
    letter of what died before; the ledger has the touch, with its cause. Such a letter names its campaign as its lane,
    and has no payload. Raises UnavailableError.
    """
    letters = await letters_in(queue)
    if queue.name in MAIL_QUEUES:
        known = {letter.id for letter in letters}
        recorded = await asyncio.to_thread(_recorded, engine, queue.name == WARMUP_QUEUE)
        letters += [letter for letter in recorded if letter.id not in known]
    found = [
        letter for letter in letters if (until_ms is None or letter.at_ms <= until_ms) and cause in (None, letter.cause)
    ]
    return sorted(found, key=lambda letter: letter.at_ms, reverse=True)


async def letters_in(queue: Queue) -> list[DeadLetter]:
    """Return every dead letter that a queue has, the newest first."""
    letters: list[DeadLetter] = []
    cursor: int | None = 0
    while cursor is not None:
        page, cursor = await queue.dead_letters(count=CHUNK, cursor=cursor)
        letters += page
    return letters


# In the order of the index of dead touches, campaign by campaign: whatever else the ledger holds is not read.
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


def _recorded(engine: sa.Engine, seeds: bool) -> list[DeadLetter]:
    """Dead touches of all campaigns that were not cancelled."""
    statement = sa.text(_DEAD).columns(*_COLUMNS)
    campaigns = sa.text(
        "SELECT id, name FROM campaign WHERE state IN ('running', 'paused', 'finished') AND warmup = :seeds ORDER BY id"
    )
    found: list[DeadLetter] = []
    with read(engine) as connection:
        for campaign_id, name in connection.execute(campaigns, {"seeds": seeds}).all():
            cursor: int | None = 0
            while cursor is not None:
                values = {"campaign_id": campaign_id, "cursor": cursor, "chunk": CHUNK}
                rows = connection.execute(statement, values).all()
                found += [_letter(row, name) for row in rows]
                cursor = rows[-1].id if len(rows) == CHUNK else None
    return found


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


def groups_of(letters: Sequence[DeadLetter]) -> list[DeadGroup]:
    """Return dead letters by cause, the largest group first."""
    by_cause: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        by_cause.setdefault(letter.cause, []).append(letter)
    groups = [
        DeadGroup(cause=cause, letters=len(of), newest_ms=newest.at_ms, example=newest.error)
        for cause, of in by_cause.items()
        for newest in [max(of, key=lambda letter: letter.at_ms)]
    ]
    return sorted(groups, key=lambda group: (-group.letters, group.cause))


async def replay(
    engine: sa.Engine,
    queue: Queue,
    ids: Sequence[str],
    *,
    now: datetime,
    expire_ms: int,
    warming: Warming = NO_WARMUP,
    shaping: Shaping | None = None,
) -> int:
    """Send dead letters again. Returns how many. Raises UsageError for what is no touch's id, UnavailableError.

    Of a mail queue the ledger decides: a touch that bounced stays where it is. One that the queue no longer has gets a
    new job, which expires ``expire_ms`` from now. If this fails halfway, the rest is queued for the ledger and
    `postroad queue rebuild` makes its jobs.
    """
    if queue.name not in MAIL_QUEUES:
        return sum([await queue.replay(ids[start : start + CHUNK]) for start in range(0, len(ids), CHUNK)])
    replayed = 0
    for start in range(0, len(ids), CHUNK):
        chunk = [read_touch(id_) for id_ in ids[start : start + CHUNK]]
        campaigns = await asyncio.to_thread(_revive, engine, chunk)
        revived = sorted(campaigns)
        states = await queue.states([job_id(touch_id) for touch_id in revived])
        by_state = dict(zip(revived, states, strict=True))
        kept = [job_id(touch_id) for touch_id, state in by_state.items() if state is JobState.DEAD]
        replayed += await queue.replay(kept) if kept else 0
        lost = [touch_id for touch_id, state in by_state.items() if state in (None, JobState.REMEMBERED)]
        # The ledger has said what these ids may do; the queue's own memory of them is over.
        await queue.acknowledge(GROUP, [], forget=[job_id(touch_id) for touch_id in lost])
        for campaign, of_campaign in _by_campaign(lost, campaigns).items():
            plan = await asyncio.to_thread(load_submit_plan, engine, campaign, warming, shaping)
            rows = await asyncio.to_thread(_rows, engine, of_campaign)
            await enqueue_touches(queue, plan, rows, expire_ms, since_ms=int(now.timestamp() * 1000))
        replayed += len(lost)
    return replayed


def _by_campaign(touch_ids: Sequence[int], campaigns: Mapping[int, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for touch_id in touch_ids:
        found[campaigns[touch_id]].append(touch_id)
    return found


def _revive(engine: sa.Engine, touch_ids: Sequence[int]) -> dict[int, str]:
    with write(engine) as connection:
        return revive(connection, touch_ids)


def _rows(engine: sa.Engine, touch_ids: Sequence[int]) -> Sequence[sa.Row[Any]]:
    with read(engine) as connection:
        return touch_rows(connection, touch_ids)
