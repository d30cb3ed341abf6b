"""The recorder at work: how many events a transaction gets."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery.recorder import GATHER_S, Recorder
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.queue import Done, Queue
from postroad.settings import BounceSettings
from postroad.store.ledger import TouchState
from tests.delivery.queue_of_touches import claim, queued_touches, state_of


class Turned(SystemClock):
    """A clock whose sleeps last until a test ends them."""

    def __init__(self) -> None:
        self.asleep: asyncio.Queue[float] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.put_nowait(seconds)
        await self.go_on.wait()
        self.go_on.clear()


async def test_few_events_wait_for_company_and_are_recorded_together(engine: sa.Engine, queue: Queue) -> None:
    touches = await queued_touches(engine, queue, 5)
    clock, stop = Turned(), asyncio.Event()
    recorder = Recorder(engine=engine, queue=queue, clock=clock, name="r", bounce=BounceSettings())
    jobs = await claim(queue)
    done = Done(note=encode_result(DeliveryResult(state=TouchState.ACCEPTED)))
    await queue.settle("w", [(jobs[0], done)], nonce="first")
    running = asyncio.create_task(recorder.run(stop))
    assert await clock.asleep.get() == GATHER_S
    assert recorder.recorded == 1
    for job in jobs[1:]:
        await queue.settle("w", [(job, done)], nonce=job.id)
    assert recorder.recorded == 1
    clock.go_on.set()
    assert await clock.asleep.get() == GATHER_S
    assert recorder.recorded == 5
    assert [state_of(engine, touch) for touch in touches] == [TouchState.ACCEPTED] * 5
    stop.set()
    clock.go_on.set()
    await running
