"""Writes results of attempts to the ledger: many in one transaction, and none twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.errors import UnavailableError
from postroad.store.engine import write
from postroad.store.webhook_log import LoggedAttempt, log_attempts
from postroad.store.webhook_out import WebhookDeliveryState, disable_endpoint, settle_deliveries

log = logging.getLogger(__name__)

GATHER_S = 0.02
"""Delay before a write, so that attempts that end together share a transaction."""
MAX_ROWS = 500
RETRY_S = 1.0


class AttemptResult(NamedTuple):
    """The result of one attempt.

    ``state``: the new state of the delivery. None: it still waits. ``disable_for``: why its endpoint is disabled.
    """

    delivery: int
    attempt: LoggedAttempt
    state: WebhookDeliveryState | None
    disable_for: str | None


class AttemptLog:
    """Records attempts. One task writes, and the callers wait for its transaction."""

    def __init__(self, engine: sa.Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._waiting: list[tuple[AttemptResult, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def record(self, result: AttemptResult) -> None:
        """Return once the result is in the ledger. While the database is unavailable, this waits."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((result, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        await done

    async def aclose(self) -> None:
        """Cancel a write that waits for the database. What is not written is sent again, with the same id."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_S)
                batch, self._waiting = self._waiting[:MAX_ROWS], self._waiting[MAX_ROWS:]
                results = [result for result, done in batch if not done.cancelled()]
                try:
                    await self._write_until_done(results)
                except Exception as error:
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                else:
                    for _, done in batch:
                        if not done.done():
                            done.set_result(None)
        finally:
            self._writer = None

    async def _write_until_done(self, results: Sequence[AttemptResult]) -> None:
        waited = False
        while True:
            try:
                return await asyncio.to_thread(self._write, results)
            except UnavailableError as error:
                if not waited:
                    log.warning("%d attempts of webhooks wait for the database: %s", len(results), error.message)
                waited = True
                await self._clock.sleep(RETRY_S)

    def _write(self, results: Sequence[AttemptResult]) -> None:
        now = self._clock.now()
        with write(self._engine) as connection:
            log_attempts(connection, [result.attempt for result in results])
            for state in WebhookDeliveryState:
                ids = sorted(result.delivery for result in results if result.state is state)
                settle_deliveries(connection, ids, state, now)
            for endpoint, why in sorted(
                {(result.attempt.endpoint, result.disable_for) for result in results if result.disable_for}
            ):
                disable_endpoint(connection, endpoint, why or "", now)
