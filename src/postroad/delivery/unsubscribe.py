"""Unsubscribing: what follows when a recipient says so, by whichever way (RFC 2369, RFC 8058)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.delivery.job import job_id
from postroad.errors import PostroadError
from postroad.queue import Queue
from postroad.settings import UnsubscribeScope
from postroad.store.engine import write
from postroad.store.ledger import end_touches_of, note_unsubscribe
from postroad.store.suppression import EVERYWHERE, SuppressionReason, strengthen, suppress

QUEUE_WITHIN_S = 2.0
"""Nobody waits longer for the queue to follow. It need not: the ledger admits no job of a touch that ended."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Unsubscribed:
    """What came of it. ``first``: it had not been said of this touch before."""

    first: bool
    ended: tuple[int, ...]


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
    done = await asyncio.to_thread(unsubscribe_touch, engine, touch_id, source, now, scope)
    if done is not None and done.ended:
        await _cancel_jobs(queue, done.ended)
    return done


def unsubscribe_touch(
    engine: sa.Engine, touch_id: int, source: str, now: datetime, scope: UnsubscribeScope
) -> Unsubscribed | None:
    """Do what `unsubscribe` does in the database. Raises UnavailableError."""
    with write(engine) as connection:
        whom = connection.execute(
            sa.text(
                "SELECT recipient.id, recipient.address, campaign.audience_id FROM touch "
                "JOIN recipient ON recipient.id = touch.recipient_id "
                "JOIN campaign ON campaign.id = touch.campaign_id WHERE touch.id = :id"
            ),
            {"id": touch_id},
        ).one_or_none()
        if whom is None:
            return None
        audience_id = EVERYWHERE if scope is UnsubscribeScope.EVERYWHERE else whom.audience_id
        suppress(connection, [whom.address], SuppressionReason.UNSUBSCRIBE, source[:200], now, audience_id)
        if audience_id == EVERYWHERE:
            # It may have been suppressed for a bounce, which somebody might lift.
            strengthen(connection, whom.address, SuppressionReason.UNSUBSCRIBE, source[:200])
        first = note_unsubscribe(connection, touch_id, source, now)
        return Unsubscribed(first=first, ended=tuple(end_touches_of(connection, whom.id, now, audience_id)))


async def _cancel_jobs(queue: Callable[[], Awaitable[Queue]], touch_ids: Sequence[int]) -> None:
    try:
        async with asyncio.timeout(QUEUE_WITHIN_S):
            await (await queue()).cancel([job_id(touch_id) for touch_id in touch_ids], "unsubscribed")
    except (PostroadError, TimeoutError) as error:
        log.warning("%d jobs stay on the queue until a worker looks at them: %s", len(touch_ids), error)
