"""One queue's connections to its server, and what is told of their use."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from postroad.clock import Clock
from postroad.queue.events import EventLog
from postroad.queue.redis.client import connect
from postroad.queue.scripts import Ran, Scripts


class Metrics(Protocol):
    """What a queue and its workers report. `postroad.queue.metrics.QueueMetrics` shows it to Prometheus."""

    def script_ran(self, queue: str, script: str, seconds: float) -> None:
        """One round trip, whatever came of it."""
        ...

    def worked(self, queue: str, *, claimed: int, settled: Iterable[str], stale: int) -> None:
        """What a worker claimed and settled in one call; ``settled``: the names of the verdicts."""
        ...

    def watchdog_tripped(self, queue: str) -> None:
        """A worker found itself idle while jobs were ready."""
        ...


class Connections:
    """A client for scripts, and one for reads that block on the server."""

    def __init__(self, url: str, base: str, clock: Clock | None, ran: Ran | None, replicas: int = 0) -> None:
        self.client = connect(url, base)
        self._blocking = connect(url, base)
        self.scripts = Scripts(self.client, base, clock, ran, replicas)
        self.log = EventLog(self._blocking, f"{base}:events")
        self.anew = partial(Connections, url, base, clock, ran, replicas)
        """The same ones, made again."""

    async def drop(self) -> None:
        """Close every connection, also those in use; the next call makes a new one."""
        for client in (self.client, self._blocking):
            await client.connection_pool.disconnect(inuse_connections=True)

    async def aclose(self) -> None:
        await self.client.aclose()
        await self._blocking.aclose()
