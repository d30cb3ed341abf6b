"""Bounds what one destination may take of a worker: which addresses mail goes to, and how many jobs at once.

A destination is a set of mail hosts: domains with the same MX set share it. A job that finds all slots of its
destination taken waits for one. When no slot is freed for a while, the hosts are slow: the jobs that wait are
deferred, so that they do not take the worker's slots from mail to other hosts.
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

PATIENCE_S = 10.0
"""How long a job waits for a slot of a destination that frees none."""


class Destinations:
    """The limits of one worker process for every destination of its direct routes."""

    def __init__(self, *, jobs: int = 5, allowed: Sequence[Network] = (), patience_s: float = PATIENCE_S) -> None:
        """Limit each destination to so many ``jobs`` at once. ``allowed``: networks that are not public, and yet used.

        ``patience_s``: how long a job waits when no slot is freed.
        """
        self.allowed = tuple(allowed)
        self._jobs = jobs
        self._patience_s = patience_s
        self._slots: dict[str, _Slots] = {}

    @classmethod
    def of(cls, settings: DeliverySettings, concurrency: int) -> Destinations:
        """Return the limits of the settings for a worker of this concurrency: half of it, where none is set."""
        jobs = settings.destination_concurrency or max(concurrency // 2, 1)
        return cls(jobs=jobs, allowed=networks(settings.allowed_networks))

    def may_connect(self, address: str) -> bool:
        """Return whether mail may go to this address. See `may_connect`."""
        return may_connect(address, self.allowed)

    @asynccontextmanager
    async def slot(self, destination: str) -> AsyncIterator[None]:
        """Hold one of the destination's slots. Raises ObstacleError when it frees none in time."""
        slots = self._slots.get(destination)
        if slots is None:
            slots = self._slots[destination] = _Slots(destination, self._jobs, self._patience_s)
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
    """The slots of one destination, and the jobs that wait for one, first come, first served."""

    def __init__(self, name: str, count: int, patience_s: float) -> None:
        self._name = name
        self._count = count
        self._patience_s = patience_s
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._moved_s = 0.0  # when a job last got or freed a slot
        self._timer: asyncio.TimerHandle | None = None
        self._reported = False

    @property
    def idle(self) -> bool:
        return self._used == 0 and not self._waiting

    async def acquire(self) -> None:
        if self._used < self._count:
            self._used += 1
            self._moved_s = self._loop.time()
            return
        if self._stalled:
            raise self._error()
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        self._watch()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release()  # It had got a slot in the same moment.
            raise

    def release(self) -> None:
        self._moved_s = self._loop.time()
        self._reported = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # The slot is handed over.
                return
        self._used -= 1

    @property
    def _stalled(self) -> bool:
        return self._loop.time() - self._moved_s >= self._patience_s

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(self._moved_s + self._patience_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._stalled:
            while self._waiting:
                turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_exception(self._error())
        elif self._waiting:
            self._watch()

    def _error(self) -> NoMailHostError:
        why = f"the mail hosts of {self._name} are slow: none of {self._count} jobs ended within {self._patience_s:g} s"
        if not self._reported:
            self._reported = True
            log.warning("%s; its other mail is deferred", why)
        return NoMailHostError(UnreachableReason.BUSY, why)
