"""Unsubscribing: what follows when a recipient says so, by whichever way (RFC 2369, RFC 8058)."""

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

QUEUE_WITHIN_S = 2.0
"""Nobody waits longer for the queue to follow. It need not: the ledger admits no job of a touch that ended."""

log = logging.getLogger(__name__)


async def unsubscribe(
    engine: sa.Engine,
    queue: Callable[[], Awaitable[Queue]],
    touch_id: int,
    source: str,
    now: datetime,
    scope: UnsubscribeScope = UnsubscribeScope.EVERYWHERE,
) -> Unsubscribed | None:
    """Send the recipient of a touch nothing more. Again: nothing more happens. None: there is no such touch.

    The suppression, its note in the ledger and the end of what waits are one transaction, and hold when this
    returns, whatever becomes of the queue: ``queue`` opens it, and is called only where a job may be on it.
    Raises UnavailableError when the database is away; nothing has happened then, or will be found to have.
    """
    done = await asyncio.to_thread(_unsubscribe, engine, touch_id, source, now, scope)
    if done is not None and done.ended:
        await _cancel_jobs(queue, done.ended)
    return done


def _unsubscribe(
    engine: sa.Engine, touch_id: int, source: str, now: datetime, scope: UnsubscribeScope
) -> Unsubscribed | None:
    with write(engine) as connection:
        return unsubscribe_touch(connection, touch_id, source, now, scope)


async def _cancel_jobs(queue: Callable[[], Awaitable[Queue]], touch_ids: Sequence[int]) -> None:
    try:
        async with asyncio.timeout(QUEUE_WITHIN_S):
            await (await queue()).cancel([job_id(touch_id) for touch_id in touch_ids], "unsubscribed")
    except (PostroadError, TimeoutError) as error:
        log.warning("%d jobs stay on the queue until a worker looks at them: %s", len(touch_ids), error)
