"""The lease of a job, which its handler gets, and the batching of marks."""

from __future__ import annotations

import asyncio

from postroad.errors import StateError, UnavailableError
from postroad.queue.queue import Queue
from postroad.queue.types import ClaimedJob


class LeaseLostError(StateError):
    """The lease was lost, so another worker may have the job. The handler must not act."""


class MarkBatcher:
    """Marks the jobs of many handlers. Marks that are requested during a call share the next one."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._waiting: list[tuple[ClaimedJob, asyncio.Future[bool]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def mark(self, job: ClaimedJob) -> bool:
        """Mark a job. Returns whether its lease is valid. Raises UnavailableError."""
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
        """Cancel a call in progress."""
        if self._sender:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)


class Lease:
    """One claimed job. Call `mark` directly before the irreversible act."""

    def __init__(self, job: ClaimedJob, marker: MarkBatcher) -> None:
        self.job = job
        self.marked = False
        self.unmarkable = False
        self._marker = marker
        self._revoked = False

    async def mark(self) -> None:
        """Mark the job. The act may happen once this has returned.

        Raises:
            LeaseLostError: The lease was lost.
            UnavailableError: The server does not reply.
        """
        if self.marked:
            return
        if self._revoked:
            raise LeaseLostError(f"Job {self.job.id} was revoked before its act.")
        try:
            ours = await self._marker.mark(self.job)
        except UnavailableError:
            self.unmarkable = True
            raise
        if not ours or self._revoked:
            raise LeaseLostError(f"Job {self.job.id} is no longer leased under token {self.job.token}.")
        self.marked = True

    def revoke(self) -> None:
        """Make `mark` fail from now on."""
        self._revoked = True
