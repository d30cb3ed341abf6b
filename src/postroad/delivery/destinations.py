"""Limits the concurrent jobs of one destination in a worker, and the addresses that mail may go to.

A destination is a set of mail hosts: domains with the same MX set share it. A job waits while all slots of its
destination are taken. If no slot is released within a timeout, the hosts are slow and the waiting jobs are deferred. So
slow hosts do not take the worker's slots from mail to other hosts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from postroad.delivery.outcome import NoMailHostError, UnreachableReason
from postroad.dns.public_address import Network, may_connect, networks
from postroad.settings import DeliverySettings

log = logging.getLogger(__name__)

SLOT_TIMEOUT_S = 10.0
"""Timeout of waiting for a slot, since the destination last released or granted one."""


class Destinations:
    """The limits of one worker process for every destination of its direct routes."""

    def __init__(
        self, *, jobs: int = 5, allowed: Sequence[Network] = (), slot_timeout_s: float = SLOT_TIMEOUT_S
    ) -> None:
        """Make the limits.

        Args:
            jobs: Concurrent jobs of one destination.
            allowed: Networks that are not public, and to which mail may go nevertheless.
            slot_timeout_s: How long a job waits when no slot is released, in seconds.
        """
        self.allowed = tuple(allowed)
        self._jobs = jobs
        self._slot_timeout_s = slot_timeout_s
        self._slots: dict[str, _Slots] = {}

    @classmethod
    def of(cls, settings: DeliverySettings, concurrency: int) -> Destinations:
        """Return the limits for a worker of this concurrency. The default is half of it for one destination."""
        jobs = settings.destination_concurrency or max(concurrency // 2, 1)
        return cls(jobs=jobs, allowed=networks(settings.allowed_networks))

    def may_connect(self, address: str) -> bool:
        """Return whether mail may go to this address. See `may_connect`."""
        return may_connect(address, self.allowed)

    @asynccontextmanager
    async def slot(self, destination: str) -> AsyncIterator[None]:
        """Hold one of the destination's slots.

        Raises:
            NoMailHostError: No slot was released in time.
        """
        slots = self._slots.get(destination)
        if slots is None:
            slots = self._slots[destination] = _Slots(destination, self._jobs, self._slot_timeout_s)
        try:
            await slots.acquire()
            try:
                yield
            finally:
                slots.release()
        finally:
            if slots.idle:
                self._slots.pop(destination, None)


class _Slots:
    """The slots of one destination, and a FIFO queue of the jobs that wait for one."""

    def __init__(self, name: str, count: int, slot_timeout_s: float) -> None:
        self._name = name
        self._count = count
        self._slot_timeout_s = slot_timeout_s
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._changed_s = 0.0  # time at which a slot was last granted or released
        self._timer: asyncio.TimerHandle | None = None
        self._reported = False

    @property
    def idle(self) -> bool:
        return self._used == 0 and not self._waiting

    async def acquire(self) -> None:
        if self._used < self._count:
            self._used += 1
            self._changed_s = self._loop.time()
            return
        if self._stalled:
            raise self._error()
        granted: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(granted)
        self._start_timer()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release()  # It was granted a slot before it was cancelled.
            raise

    def release(self) -> None:
        self._changed_s = self._loop.time()
        self._reported = False
        while self._waiting:
            granted = self._waiting.popleft()
            if not granted.done():
                granted.set_result(None)  # The slot passes to this job.
                return
        self._used -= 1

    @property
    def _stalled(self) -> bool:
        return self._loop.time() - self._changed_s >= self._slot_timeout_s

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(self._changed_s + self._slot_timeout_s, self._check_timeout)

    def _check_timeout(self) -> None:
        self._timer = None
        if self._stalled:
            while self._waiting:
                granted = self._waiting.popleft()
                if not granted.done():
                    granted.set_exception(self._error())
        elif self._waiting:
            self._start_timer()

    def _error(self) -> NoMailHostError:
        timeout = f"{self._slot_timeout_s:g} s"
        why = f"the mail hosts of {self._name} are slow: none of {self._count} jobs ended within {timeout}"
        if not self._reported:
            self._reported = True
            log.warning("%s; its other mail is deferred", why)
        return NoMailHostError(UnreachableReason.BUSY, why)
