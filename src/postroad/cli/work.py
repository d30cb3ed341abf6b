"""What a worker does, by the name of its queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

from postroad.bounce.effects import Rules
from postroad.bounce.handler import BounceHandler, keep_house
from postroad.bounce.intake import BOUNCE_QUEUE, Intake
from postroad.bounce.reading import MailReader
from postroad.delivery.admit import Admission
from postroad.delivery.control import follow_ledger
from postroad.delivery.job import MAIL_QUEUES, SEND_QUEUE, WARMUP_QUEUE
from postroad.delivery.limits import gates_of, keep_limits, set_limits
from postroad.delivery.metrics import DeliveryMetrics
from postroad.delivery.opening import open_delivery
from postroad.parts import Parts
from postroad.queue import Handle, Prepare, Queue
from postroad.settings import QueueSettings
from postroad.warmup.caps import CapKeeper


class Work(NamedTuple):
    """How the jobs of a queue are handled."""

    handle: Handle
    prepare: Prepare | None = None


@asynccontextmanager
async def _deliver(parts: Parts, queue: Queue, limits: QueueSettings) -> AsyncIterator[Work]:
    settings = parts.settings
    gates = gates_of(settings, limits)
    await set_limits(queue, gates)
    opening = open_delivery(
        settings,
        engine=parts.engine,
        queue=queue,
        signer=parts.signer,
        resolver=await parts.resolver(),
        clock=parts.clock,
        environ=os.environ,
        registry=parts.metrics.registry if parts.metrics is not None else None,
        concurrency=limits.concurrency,
    )
    source_field = settings.cohort_breaker.source_field
    caps = CapKeeper(settings, engine=parts.engine, queue=queue, clock=parts.clock)
    await caps.turn()
    keeping = asyncio.gather(keep_limits(queue, gates, parts.clock), caps.keep())
    try:
        async with opening as delivery:
            yield Work(delivery, Admission(parts.engine, parts.clock, parts.hash_of, source_field))
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@asynccontextmanager
async def _judge_bounces(parts: Parts, queue: Queue, limits: QueueSettings) -> AsyncIterator[Work]:
    settings = parts.settings
    mail_queues = [await parts.queue(name) for name in MAIL_QUEUES]
    await set_limits(queue, gates_of(settings, limits)[:1])  # The queue's own: nothing here is of a sender.

    async def follow(ended: Sequence[int], known: Sequence[int]) -> None:
        for mail_queue in mail_queues:
            await follow_ledger(mail_queue, ended, known)

    intake = Intake(engine=parts.engine, queue=queue, clock=parts.clock)
    keeping = asyncio.create_task(
        keep_house(parts.engine, intake, settings.bounce, parts.clock, window_ms=settings.web.webhooks.window_ms)
    )
    count = DeliveryMetrics(parts.engine, parts.metrics.registry).count if parts.metrics is not None else None
    try:
        with MailReader() as read:
            handler = BounceHandler(
                engine=parts.engine,
                rules=Rules(signer=parts.signer, settings=settings.bounce, scope=settings.web.unsubscribe),
                read=read,
                clock=parts.clock,
                follow=follow,
                count=count,
            )
            yield Work(handler, handler.prepare)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


Serve = Callable[[Parts, Queue, QueueSettings], AbstractAsyncContextManager[Work]]

WORK: Mapping[str, Serve] = {SEND_QUEUE: _deliver, WARMUP_QUEUE: _deliver, BOUNCE_QUEUE: _judge_bounces}
"""Every queue that `postroad worker` serves."""
