"""Dead letters that a person gives up end in the ledger and leave the queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from postroad.delivery.job import SEND_QUEUE, job_id
from postroad.delivery.submit import SubmitOptions
from postroad.errors import UsageError
from postroad.operations.dead_letters import drop, list_dead_letters, replay
from postroad.queue import Dead, JobState, Queue
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import claim, noted, queued_touches, recorder, set_state, state_of
from tests.kit.queues import delete_queue
from tests.store.rows import NOW

LATER = NOW + timedelta(hours=1)


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    """The queue of mail, empty. Of its dead letters the ledger decides."""
    async with Queue.open(redis_url, SEND_QUEUE) as queue:
        yield queue
        assert await queue.audit() == []
    await delete_queue(redis_url, SEND_QUEUE)


async def dead_touches(engine: sa.Engine, queue: Queue, count: int) -> list[int]:
    touches = await queued_touches(engine, queue, count)
    jobs = await claim(queue)
    for touch in touches:
        set_state(engine, touch, TouchState.SENDING)
    await queue.settle("w", [(job, Dead(cause="template", error="no such name")) for job in jobs])
    await recorder(engine, queue).drain()
    return touches


async def test_a_dropped_letter_is_cancelled_and_listed_no_more(engine: sa.Engine, queue: Queue) -> None:
    touches = await dead_touches(engine, queue, 3)
    ids = [job_id(touch) for touch in touches]
    assert await drop(engine, queue, ids[:2], by="ada@host", now=LATER) == 2
    await recorder(engine, queue).drain()
    assert [state_of(engine, touch) for touch in touches] == [TouchState.CANCELLED] * 2 + [TouchState.DEAD]
    assert await queue.states(ids) == [JobState.REMEMBERED] * 2 + [JobState.DEAD]
    assert ("cancelled", "resolved", "dropped by ada@host") in noted(engine, touches[0])
    assert [letter.id for letter in await list_dead_letters(engine, queue)] == ids[2:]
    options = SubmitOptions(expire_ms=10**12)
    assert await replay(engine, queue, ids, options, now=LATER) == 1, "what was dropped is not sent again"
    assert await drop(engine, queue, ids, by="ada@host", now=LATER) == 0, "what is sent again is not dropped"
    assert await queue.states(ids) == [JobState.REMEMBERED] * 2 + [JobState.QUEUED]


async def test_a_letter_that_the_queue_lost_is_dropped_in_the_ledger(engine: sa.Engine, queue: Queue) -> None:
    [touch] = await dead_touches(engine, queue, 1)
    await queue.drop()
    assert state_of(engine, touch) is TouchState.DEAD
    assert await drop(engine, queue, [job_id(touch)], by="ada@host", now=LATER) == 1
    assert state_of(engine, touch) is TouchState.CANCELLED


async def test_nothing_is_dropped_if_an_id_is_not_one(engine: sa.Engine, queue: Queue) -> None:
    [touch] = await dead_touches(engine, queue, 1)
    with pytest.raises(UsageError):
        await drop(engine, queue, [job_id(touch), "x"], by="ada@host", now=LATER)
    assert state_of(engine, touch) is TouchState.DEAD
