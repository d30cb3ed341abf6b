"""Handing touches to the queue, as every flow that does so does it."""

from __future__ import annotations

from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.submit import Submitted, submit_due
from postroad.parts import Parts


async def hand_over(parts: Parts, campaign: str, *, cursor: int, rows: int) -> Submitted:
    """Hand over what is due within the settings' horizon, up to so many rows, behind the cursor."""
    delivery = parts.settings.delivery
    return await submit_due(
        parts.engine,
        await parts.queue(SEND_QUEUE),
        campaign,
        now=parts.clock.now(),
        horizon_ms=delivery.horizon_ms,
        expire_ms=delivery.expire_ms,
        cursor=cursor,
        limit=rows,
        providers=await parts.providers(),
        shaping=parts.shaping,
    )
