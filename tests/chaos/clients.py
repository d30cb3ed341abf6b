"""Clients of the queue during the faults: one enqueues jobs, one reads their events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from random import Random
from typing import NamedTuple

from postroad.errors import UnavailableError
from postroad.queue import EventKind, Job, JobClass, Lane, Queue
from tests.chaos.work import WEIGHTS, Task

GATES = ("narrow", "slow", "all")
LANES = (
    Lane(name="a", gates=("all",)),
    Lane(name="b", gates=("narrow", "all"), job_class=JobClass.URGENT),
    Lane(name="c", gates=("slow", "all"), job_class=JobClass.BULK, weight=2.0),
    Lane(name="d", gates=()),
)
ENDED = (EventKind.DONE, EventKind.CANCELLED, EventKind.EXPIRED)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Submitter:
    """Enqueues jobs until the stop, including known ids, and repeats every call until the server replies."""

    def __init__(self, queue: Queue, rng: Random, *, per_second: int) -> None:
        self._queue = queue
        self._rng = rng
        self._per_second = per_second
        self._submitted: list[str] = []
        self.accepted_at_ms: dict[str, int] = {}
        self.repeated = 0
        self.unanswered = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            size = self._rng.randint(1, 40)
            await self._submit(size)
            if self._rng.random() < 0.1:
                await self._cancel()
            await asyncio.sleep(size / self._per_second)

    async def _submit(self, size: int) -> None:
        lane = self._rng.choice(LANES)
        fresh = [f"{len(self._submitted) + n}" for n in range(size)]
        again = self._rng.choices(self._submitted, k=min(size, 10)) if self._submitted else []
        asked_at_ms = now_ms()
        jobs = [self._job(id_, asked_at_ms) for id_ in dict.fromkeys([*fresh, *again])]
        while True:
            try:
                await self._queue.enqueue(lane, jobs)
                break
            except UnavailableError:
                self.unanswered += 1
                await asyncio.sleep(0.05)
        self._submitted += fresh
        self.repeated += len(jobs) - len(fresh)
        for id_ in fresh:
            self.accepted_at_ms[id_] = now_ms()

    def _job(self, id_: str, asked_at_ms: int) -> Job:
        # A job's task depends only on its id, so a repetition asks for the same.
        rng = Random(id_)
        [task] = rng.choices(list(Task), weights=[WEIGHTS[task] for task in Task])
        due_ms = asked_at_ms + rng.randrange(2_000) if rng.random() < 0.2 else 0
        expires_ms = asked_at_ms + 3_000 if rng.random() < 0.02 else 0
        return Job(id=id_, payload=task.encode(), due_ms=due_ms, expires_ms=expires_ms)

    async def _cancel(self) -> None:
        try:
            await self._queue.cancel(self._submitted[-200:][: self._rng.randint(1, 5)], "chaos")
        except UnavailableError:
            self.unanswered += 1


class Moment(NamedTuple):
    """One event of one job, as it was read."""

    uid: str
    kind: EventKind
    at_ms: int


class EventReader:
    """Reads every event at least once, and stores the events of each job."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.moments: dict[str, dict[str, Moment]] = defaultdict(dict)
        """By job and by the event's uid, because an event may be read twice."""
        self.kinds: Counter[EventKind] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.read(block_ms=200)
            except UnavailableError:
                await asyncio.sleep(0.05)

    async def read(self, *, block_ms: int) -> int:
        # Events of a lost reply are read again by the same consumer.
        events = await self._queue.read_events("reader", "reader", count=1_000, block_ms=block_ms, idle_ms=1_000)
        for event in events:
            if event.uid not in self.moments[event.id]:
                self.kinds[event.kind] += 1
            self.moments[event.id][event.uid] = Moment(event.uid, event.kind, event.at_ms)
        await self._queue.acknowledge("reader", events)
        return len(events)
