"""The session pools of all endpoints in use. Pools that are idle for a while are closed."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from postroad.smtp.endpoint import Endpoint
from postroad.smtp.errors import Timeouts
from postroad.smtp.pool import IDLE_SECONDS, SessionPool

SWEEP_SECONDS = 5.0


class Pools:
    """One pool for each endpoint: route × host × source address × protection."""

    def __init__(self, timeouts: Timeouts | None = None, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._timeouts = timeouts or Timeouts()
        self._idle_seconds = idle_seconds
        self._pools: dict[Endpoint, SessionPool] = {}
        self._swept = time.monotonic()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(pool.__aexit__(None, None, None) for pool in self._pools.values()))
        self._pools.clear()

    def __len__(self) -> int:
        return len(self._pools)

    def of(self, endpoint: Endpoint) -> SessionPool:
        """Return the pool of an endpoint. Use it at once: an idle pool may be closed later."""
        if time.monotonic() - self._swept > min(SWEEP_SECONDS, self._idle_seconds):
            self._sweep()
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = SessionPool(endpoint, self._timeouts, idle_seconds=self._idle_seconds)
        return pool

    def _sweep(self) -> None:
        # Direct delivery connects to thousands of hosts, to most of them once.
        self._swept = time.monotonic()
        for endpoint, pool in list(self._pools.items()):
            pool.close_idle()
            if pool.idle:
                del self._pools[endpoint]
