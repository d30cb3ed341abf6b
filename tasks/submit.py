"""Handing touches to the queue, as every flow that does so does it."""

from __future__ import annotations

import asyncio

from postroad.delivery.dns_health import shut_gates
from postroad.delivery.submit import Submitted, queue_name, submit_due
from postroad.parts import Parts
from postroad.warmup.caps import CapKeeper
from postroad.warmup.identity import warming
from postroad.warmup.overflow import overflow


async def hand_over(parts: Parts, campaign: str, *, cursor: int, rows: int) -> Submitted:
    """Hand over what is due within the settings' horizon, up to so many rows, behind the cursor."""
    delivery = parts.settings.delivery
    queue = await parts.queue(await asyncio.to_thread(queue_name, parts.engine, campaign))
    await shut_gates(parts.engine, queue)  # A queue that was emptied has forgotten whom the ledger holds back.
    warm = warming(parts.settings)
    if warm:
        # Before there are jobs: a queue that was emptied would let them all through.
        await CapKeeper(parts.settings, engine=parts.engine, queue=queue, clock=parts.clock).turn()
    now, horizon_ms = parts.clock.now(), delivery.horizon_ms
    if cursor == 0:
        await asyncio.to_thread(overflow, parts.engine, parts.settings, campaign, now=now, horizon_ms=horizon_ms)
    return await submit_due(
        parts.engine,
        queue,
        campaign,
        now=now,
        horizon_ms=horizon_ms,
        expire_ms=delivery.expire_ms,
        cursor=cursor,
        limit=rows,
        providers=await parts.providers(),
        warming=warm,
        shaping=parts.shaping,
    )
