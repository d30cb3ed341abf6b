"""A job in a worker's hands: what its handler gets, and how marks of many handlers share a round trip."""

from __future__ import annotations

import asyncio

from postroad.errors import StateError, UnavailableError
from postroad.queue.jobs import ClaimedJob
from postroad.queue.queue import Queue


class LeaseLostError(StateError):
    """The job is no longer ours: somebody else may have it. Whoever gets this must not act."""


class MarkBatcher:
    """Marks the jobs of many handlers; those that ask while a call is under way share the next one."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._waiting: list[tuple[ClaimedJob, asyncio.Future[bool]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def mark(self, job: ClaimedJob) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, answer))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                held = await self._queue.mark([job for job, _ in waiting])
            except Exception as error:
                for _, answer in waiting:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for (_, answer), ours in zip(waiting, held, strict=True):
                    if not answer.done():
                        answer.set_result(ours)
        self._sender = None

    async def aclose(self) -> None:
        """Drop a call that is still under way."""
        if self._sender:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)


class Lease:
    """One claimed job. Call `mark` immediately before the act that cannot be taken back."""

    def __init__(self, job: ClaimedJob, marker: MarkBatcher) -> None:
        self.job = job
        self.marked = False
        self.unmarkable = False
        self._marker = marker
        self._revoked = False

    async def mark(self) -> None:
        """Return when the act may go ahead. `LeaseLostError`, `UnavailableError`: it may not."""
        if self.marked:
            return
        if self._revoked:
            raise LeaseLostError(f"Job {self.job.id} was taken back before its act.")
        try:
            ours = await self._marker.mark(self.job)
        except UnavailableError:
            self.unmarkable = True
            raise
        if not ours or self._revoked:
            raise LeaseLostError(f"Job {self.job.id} is no longer leased under token {self.job.token}.")
        self.marked = True

    def revoke(self) -> None:
        """From now on `mark` refuses."""
        self._revoked = True
