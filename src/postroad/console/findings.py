"""Runs the checks of `postroad doctor` now and then, so that a page shows them without waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from postroad.clock import Clock
from postroad.doctor import Check, examine
from postroad.queue import Health

CHECK_EVERY_S = 300.0
CHECKS_WITHIN_S = 120.0

log = logging.getLogger(__name__)

_WORST_FIRST = {Health.FAIL: 0, Health.WARN: 1, Health.OK: 2}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The results of all checks, the worst first.

    Attributes:
        at: When they were made.
        checks: All checks.
    """

    at: datetime
    checks: Sequence[Check]

    @property
    def problems(self) -> list[Check]:
        """Checks that warn or fail."""
        return [check for check in self.checks if check.health is not Health.OK]


class FindingsWatch:
    """Keeps the latest findings. Checks run in a loop and threads of their own: some of them block or hang."""

    def __init__(self, clock: Clock, run: Callable[[], Awaitable[Sequence[Check]]] = examine) -> None:
        self._clock = clock
        self._run = run
        self._running: asyncio.Task[None] | None = None
        self.latest: Findings | None = None
        """None: the first checks have not finished."""

    @property
    def is_running(self) -> bool:
        """Whether checks are running."""
        return self._running is not None and not self._running.done()

    def refresh(self) -> asyncio.Task[None]:
        """Start the checks, unless they are running. Returns the task that ends with them."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._check())
        return self._running

    async def watch(self) -> None:
        """Run the checks at intervals, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(CHECK_EVERY_S)

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(CHECKS_WITHIN_S):
                checks = await asyncio.to_thread(lambda: asyncio.run(_all(self._run)))
        except Exception:
            log.exception("the checks could not be run")
            return
        checks = sorted(checks, key=lambda check: _WORST_FIRST[check.health])
        self.latest = Findings(at=self._clock.now(), checks=checks)


async def _all(run: Callable[[], Awaitable[Sequence[Check]]]) -> Sequence[Check]:
    return await run()
