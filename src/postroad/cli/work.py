"""What a worker does, by the name of its queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

from postroad.bounce.effects import Rules
from postroad.bounce.handler import BounceHandler, keep_house
from postroad.bounce.intake import BOUNCE_QUEUE, REPORTS_GATE, Intake
from postroad.bounce.reading import MailReader, ReportReader
from postroad.bounce.receivers import ReportRules
from postroad.delivery.admit import Admission
from postroad.delivery.control import follow_ledger
from postroad.delivery.gate_controller import GateController
from postroad.delivery.job import MAIL_QUEUES, SEND_QUEUE, WARMUP_QUEUE
from postroad.delivery.limits import SettingsLimits, gates_of
from postroad.delivery.metrics import DeliveryMetrics
from postroad.delivery.opening import open_delivery
from postroad.delivery.sent_log import log_sent
from postroad.mail.address import ascii_domain
from postroad.parts import Parts
from postroad.queue import Gate, Handle, Prepare, Queue
from postroad.settings import QueueSettings, Settings


class Work(NamedTuple):
    """How the jobs of a queue are handled."""

    handle: Handle
    prepare: Prepare | None = None


@asynccontextmanager
async def _deliver(parts: Parts, queue: Queue, limits: QueueSettings) -> AsyncIterator[Work]:
    settings = parts.settings
    await parts.gates(queue, limits, starting=True).apply()
    opening = open_delivery(
        settings,
        engine=parts.engine,
        queue=queue,
        gates=parts.gates(queue, limits),
        signer=parts.signer,
        resolver=await parts.resolver(),
        clock=parts.clock,
        environ=os.environ,
        registry=parts.metrics.registry if parts.metrics is not None else None,
        concurrency=limits.concurrency,
    )
    source_field = settings.cohort_breaker.source_field
    async with opening as delivery:
        reporting = asyncio.create_task(log_sent(delivery.counts, queue.name, parts.clock))
        try:
            yield Work(delivery, Admission(parts.engine, parts.clock, parts.hash_of, source_field))
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)


@asynccontextmanager
async def _judge_bounces(parts: Parts, queue: Queue, limits: QueueSettings) -> AsyncIterator[Work]:
    settings = parts.settings
    mail_queues = [await parts.queue(name) for name in MAIL_QUEUES]
    # The queue's own, as nothing here is of a sender, and one that has reports read one mail at a time.
    gates = [*gates_of(settings, limits)[:1], Gate(name=REPORTS_GATE, concurrency=1)]
    await GateController(parts.engine, queue, [SettingsLimits(gates, starting=True)]).apply()

    async def follow(ended: Sequence[int], known: Sequence[int]) -> None:
        for mail_queue in mail_queues:
            await follow_ledger(mail_queue, ended, known)

    intake = Intake(engine=parts.engine, queue=queue, clock=parts.clock)
    keeping = asyncio.create_task(
        keep_house(parts.engine, intake, settings.bounce, parts.clock, window_ms=settings.web.webhooks.window_ms)
    )
    count = DeliveryMetrics(parts.engine, parts.metrics.registry).count if parts.metrics is not None else None
    try:
        with MailReader() as read, ReportReader() as read_reports:
            handler = BounceHandler(
                engine=parts.engine,
                rules=Rules(signer=parts.signer, settings=settings.bounce, scope=settings.web.unsubscribe),
                read=read,
                reports=ReportRules(read=read_reports, domains=_domains(settings)),
                intake=intake,
                clock=parts.clock,
                follow=follow,
                count=count,
            )
            yield Work(handler, handler.prepare)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


def _domains(settings: Settings) -> tuple[str, ...]:
    """Return the domains that reports of receivers are kept for: of From, and of return paths."""
    names = {name for sender in settings.senders.values() for name in (sender.domain, sender.bounce_domain) if name}
    return tuple(sorted(ascii_domain(name.lower()) for name in names))


Serve = Callable[[Parts, Queue, QueueSettings], AbstractAsyncContextManager[Work]]

WORK: Mapping[str, Serve] = {SEND_QUEUE: _deliver, WARMUP_QUEUE: _deliver, BOUNCE_QUEUE: _judge_bounces}
"""Every queue that `postroad worker` serves."""
