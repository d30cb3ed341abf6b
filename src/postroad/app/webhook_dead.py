"""Sends the dead events of one endpoint again, as `postroad queue replay --queue webhook:out` sends those of all."""

from __future__ import annotations

import asyncio
from typing import Final

from postroad.app.context import AppContext
from postroad.app.replay import replay
from postroad.app.webhooks import named_endpoint
from postroad.events_out.job import WEBHOOK_QUEUE, job_id, job_of, lane_of
from postroad.queue import JobState
from postroad.store.engine import read, write
from postroad.store.webhook_out import OpenDelivery, WebhookDeliveryState, open_deliveries, settle_deliveries

MAX_RESENT: Final = 500
"""Events that one act sends again."""


async def resend_dead(context: AppContext, name: str) -> int:
    """Send dead events of an endpoint again, with all their attempts: the oldest ones, at most `MAX_RESENT`.

    Args:
        context: The open parts.
        name: The endpoint.

    Returns:
        How many are sent again. An event that was dropped from the queue is not.

    Raises:
        StateError: The settings do not name the endpoint.
        UnavailableError: The database or the queue does not answer.
    """
    named_endpoint(context, name)

    def find() -> list[OpenDelivery]:
        with read(context.engine) as connection:
            return open_deliveries(connection, name, WebhookDeliveryState.DEAD, limit=MAX_RESENT)

    dead = await asyncio.to_thread(find)
    if not dead:
        return 0
    queue = await context.queue(WEBHOOK_QUEUE)
    with_states = list(zip(dead, await queue.states([job_id(each) for each in dead]), strict=True))
    letters = [delivery for delivery, state in with_states if state is JobState.DEAD]
    lost = [delivery for delivery, state in with_states if state is None]

    def open_again() -> None:
        with write(context.engine) as connection:
            ids = [delivery.id for delivery in (*letters, *lost)]
            settle_deliveries(connection, ids, WebhookDeliveryState.WAITING, context.clock.now())

    # If a later step fails, the feeder enqueues the lost ones, and records the letters as dead again.
    await asyncio.to_thread(open_again)
    await replay(context, queue, [job_id(delivery) for delivery in letters])
    if lost:
        await queue.enqueue(lane_of(name), [job_of(delivery) for delivery in lost])
    return len(letters) + len(lost)
