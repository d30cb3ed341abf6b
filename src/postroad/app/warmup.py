"""What happens to warming senders day by day. The flow `warmup` calls each; a rehearsal closes days itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

from postroad.app.context import AppContext
from postroad.delivery.job import MAIL_QUEUES
from postroad.delivery.submit import queue_name
from postroad.gates.controller import count_corrected
from postroad.operations import campaigns
from postroad.store.warmup import WarmupDayRow
from postroad.warmup import day
from postroad.warmup.identity import WarmingIdentity
from postroad.warmup.seeds import SeedPlan, make_campaign, plan_seeds, stale_campaigns


async def close_day(context: AppContext, identities: Iterable[WarmingIdentity], now: datetime) -> list[WarmupDayRow]:
    """Count what became of the last days' mail and decide today's caps. Idempotent: what was decided is kept.

    Returns:
        Today's row of each identity and provider. Those decided by this call have ``decided_at`` equal to ``now``.

    Raises:
        UnavailableError: The database is unavailable.
    """
    return [
        row for identity in identities for row in await asyncio.to_thread(day.close_day, context.engine, identity, now)
    ]


async def set_caps(context: AppContext) -> int:
    """Set the gates of both queues of mail to the caps that were decided, for all workers at once.

    Returns:
        How many gates were changed.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    # All other mail first: the part of the seed lists is taken from its caps.
    queues = [await context.queue(name) for name in MAIL_QUEUES]
    return sum([count_corrected(await context.gates(queue).apply()) for queue in queues])


async def override_caps(
    context: AppContext, identities: Iterable[WarmingIdentity], provider: str, cap: int, *, by: str, why: str
) -> None:
    """Set today's cap of identities at a provider and end a pause, for all workers at once. Growth continues from it.

    Args:
        context: Settings and open parts.
        identities: The identities that the cap applies to.
        provider: The mailbox provider that the cap applies to.
        cap: Messages a day.
        by: Who sets the cap.
        why: The reason, which is recorded.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    now = context.clock.now()
    for identity in identities:
        await asyncio.to_thread(day.set_cap, context.engine, identity, provider, cap, by=by, why=why, now=now)
    await set_caps(context)


async def make_seed_campaign(context: AppContext, sender: str) -> str | None:
    """Make the day's campaign to a sender's seed list, and cancel what is left of those of earlier days.

    Returns:
        Name of the campaign. None: the sender has no seed list.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    now = context.clock.now()
    name = await asyncio.to_thread(make_campaign, context.engine, context.settings, sender, now)
    for old in await asyncio.to_thread(stale_campaigns, context.engine, context.settings, sender, name or ""):
        queue = await context.queue(await asyncio.to_thread(queue_name, context.engine, old))
        await campaigns.cancel(context.engine, queue, old, now)
    return name


async def plan_seed_mail(context: AppContext, sender: str, campaign: str) -> SeedPlan:
    """Choose recipients and times of the day's mail to a seed list, and set its part of the caps. Once a day.

    Returns:
        What is planned for the day.

    Raises:
        UnavailableError: The database or the queue is unavailable.
    """
    now = context.clock.now()
    plan = await asyncio.to_thread(plan_seeds, context.engine, context.settings, sender, campaign, now)
    await set_caps(context)
    return plan
