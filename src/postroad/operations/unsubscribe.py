"""Unsubscribes recipients, whichever way they asked for it (RFC 2369, RFC 8058)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.errors import PostroadError
from postroad.queue import Queue
from postroad.settings import UnsubscribeScope
from postroad.store.engine import write
from postroad.store.unsubscribe import Unsubscribed, unsubscribe_touch

QUEUE_TIMEOUT_S = 2.0
"""Timeout of cancelling the jobs. They may stay: the ledger admits no job of a touch that ended."""

log = logging.getLogger(__name__)


async def unsubscribe(
    engine: sa.Engine,
    queue: Callable[[], Awaitable[Queue]],
    touch_id: int,
    source: str,
    now: datetime,
    scope: UnsubscribeScope = UnsubscribeScope.EVERYWHERE,
) -> Unsubscribed | None:
    """Suppress the recipient of a touch, and end the mail that waits for them. Idempotent.

    One transaction writes the suppression, its event in the ledger and the end of waiting touches. It is committed when
    this returns, whether or not the queue is available.

    Args:
        engine: The ledger's database.
        queue: Opens the queue. It is called only if a job may be on it.
        touch_id: The touch whose recipient unsubscribes.
        source: How they asked for it, such as `link` or `reply`.
        now: The time.
        scope: Whether they are suppressed everywhere, or for the touch's audience.

    Returns:
        What was changed. None: there is no such touch.

    Raises:
        UnavailableError: The database is unavailable. All of the transaction was committed, or nothing.
    """

    def write_unsubscribe() -> Unsubscribed | None:
        with write(engine) as connection:
            return unsubscribe_touch(connection, touch_id, source, now, scope)

    done = await asyncio.to_thread(write_unsubscribe)
    if done is not None and done.ended:
        await _cancel_jobs(queue, done.ended)
    return done


async def _cancel_jobs(queue: Callable[[], Awaitable[Queue]], touch_ids: Sequence[int]) -> None:
    try:
        async with asyncio.timeout(QUEUE_TIMEOUT_S):
            await (await queue()).cancel([job_id(touch_id) for touch_id in touch_ids], "unsubscribed")
    except (PostroadError, TimeoutError) as error:
        log.warning("%d jobs stay on the queue until a worker looks at them: %s", len(touch_ids), error)
