"""The tasks of the jobs of a run, and the worker process that executes them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import assert_never

from postroad.clock import SystemClock
from postroad.errors import UnavailableError
from postroad.queue import (
    Cancel,
    ClaimedJob,
    Dead,
    Defer,
    Done,
    Lease,
    LeaseLostError,
    Queue,
    QueueOptions,
    Retry,
    RetryPolicy,
    SettleResult,
    Verdict,
    Worker,
    WorkerOptions,
)
from tests.chaos.sink import Sink
from tests.chaos.steps import PlannedCrash, Step, Steps

POLICY = RetryPolicy(attempts=3, delays_ms=(200, 400), jitter=0.2)
REFUSED = "refused"
"""Journal entry of a job whose mark was rejected by fencing."""


class Task(StrEnum):
    """The task of a job. All but the first exist so that other verdicts also occur during the faults."""

    ACT = "act"
    ACT_AT_LAST = "act on the last attempt"
    ACT_LATER = "act on the third claim"
    FAIL = "fail on every attempt"
    BE_DEAD = "be refused for good"
    BE_SKIPPED = "be cancelled while it is prepared"


WEIGHTS = {
    Task.ACT: 80,
    Task.ACT_AT_LAST: 5,
    Task.ACT_LATER: 5,
    Task.FAIL: 3,
    Task.BE_DEAD: 4,
    Task.BE_SKIPPED: 3,
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings of one worker process. ``careless``: it acts before its mark, which the run must detect."""

    url: str
    queue: str
    folder: Path
    concurrency: int
    lease_ms: int
    seed: int
    crash: PlannedCrash | None = None
    careless: bool = False

    @property
    def sink(self) -> Path:
        return self.folder / "sink"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"


class _Watched(Queue):
    """A queue that reports the steps before and after a settle."""

    steps: Steps

    async def settle(
        self,
        worker: str,
        verdicts: Sequence[tuple[ClaimedJob, Verdict]],
        *,
        want: int = 0,
        lease_ms: int = 60_000,
        nonce: str | None = None,
    ) -> SettleResult:
        if verdicts:
            self.steps.reach(Step.SETTLE)
        settled = await super().settle(worker, verdicts, want=want, lease_ms=lease_ms, nonce=nonce)
        if verdicts:
            self.steps.reach(Step.SETTLED)
        return settled


class Handler:
    """Prepares and handles jobs, and reports its steps."""

    def __init__(self, sink: Sink, steps: Steps, rng: Random, *, careless: bool) -> None:
        self._sink = sink
        self._steps = steps
        self._rng = rng
        self._careless = careless
        self._clock = SystemClock()

    async def prepare(self, batch: Sequence[ClaimedJob]) -> Mapping[str, Verdict]:
        self._steps.reach(Step.CLAIM)
        await asyncio.sleep(self._rng.uniform(0, 0.005))
        skipped: dict[str, Verdict] = {
            job.id: Cancel(cause="skipped") for job in batch if job.payload.decode() == Task.BE_SKIPPED
        }
        self._steps.reach(Step.PREPARE)
        return skipped

    async def handle(self, lease: Lease) -> Verdict:
        job = lease.job
        match Task(job.payload.decode()):
            case Task.ACT:
                return await self._act(lease)
            case Task.ACT_AT_LAST:
                return await self._act(lease) if job.attempt == POLICY.attempts else Retry(cause="not yet")
            case Task.ACT_LATER:
                if job.claim > 2:
                    return await self._act(lease)
                return Defer(at_ms=self._clock.now_ms() + self._rng.randrange(500), cause="later")
            case Task.FAIL:
                raise RuntimeError("a handler that fails")
            case Task.BE_DEAD:
                await self._mark(lease)
                return Dead(cause="refused for good")
            case Task.BE_SKIPPED:
                raise AssertionError("it was not skipped")
            case other:
                assert_never(other)

    async def _act(self, lease: Lease) -> Verdict:
        if not self._careless:
            await self._mark(lease)
        self._steps.reach(Step.ACT_BEFORE)
        await asyncio.sleep(self._rng.uniform(0, 0.01))
        await asyncio.to_thread(self._sink.act, lease.job.id, lease.job.token)
        self._steps.reach(Step.ACT_AFTER)
        return Done()

    async def _mark(self, lease: Lease) -> None:
        self._steps.reach(Step.MARK)
        await asyncio.sleep(self._rng.uniform(0, 0.01))
        try:
            await lease.mark()
        except LeaseLostError:
            self._steps.note(f"{REFUSED} {lease.job.id}")
            raise


def work(job: Job) -> None:
    """Run one worker until SIGTERM, in a separate process."""
    logging.basicConfig(filename=job.folder / "worker.log", format="%(process)d %(levelname)s %(message)s")
    # Outages are expected in a run; a rejected call is not.
    logging.getLogger("postroad.queue.job_runner").addFilter(
        lambda record: "a handler that fails" not in str(record.exc_info)
    )
    asyncio.run(_work(job))


async def _open(job: Job, stack: AsyncExitStack) -> _Watched:
    while True:
        try:
            queue = await stack.enter_async_context(
                _Watched.open(job.url, job.queue, options=QueueOptions(retry=POLICY))
            )
        except UnavailableError:
            await asyncio.sleep(0.05)
        else:
            assert isinstance(queue, _Watched)
            return queue


async def _work(job: Job) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    steps = Steps(job.crash, job.journal)
    with Sink(job.sink) as sink:
        async with AsyncExitStack() as stack:
            queue = await _open(job, stack)
            queue.steps = steps
            handler = Handler(sink, steps, Random(job.seed), careless=job.careless)
            worker = Worker(
                queue,
                handler.handle,
                prepare=handler.prepare,
                concurrency=job.concurrency,
                options=WorkerOptions(lease_ms=job.lease_ms, drain_ms=2_000),
            )
            await worker.run(stop)
