"""What a worker does, by the name of its queue: delivers mail, applies bounces, or sends events to endpoints."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import NamedTuple

from postroad.app.context import AppContext
from postroad.app.webhooks import endpoint_gates, open_webhook_handler
from postroad.bounce.handler import AfterCommit, BounceHandler, run_maintenance
from postroad.bounce.intake import BOUNCE_QUEUE, REPORTS_GATE, Intake
from postroad.bounce.process import BounceRules
from postroad.bounce.readers import MailReader, ReportReader
from postroad.bounce.report_mail import ReportRules
from postroad.delivery.admit import Admission
from postroad.delivery.compiled_steps import CompiledSteps
from postroad.delivery.destinations import Destinations
from postroad.delivery.handler import SendHandler
from postroad.delivery.job import MAIL_QUEUES, SEND_QUEUE, WARMUP_QUEUE
from postroad.delivery.metrics import DeliveryMetrics
from postroad.delivery.routes import RouteMetrics, open_routes, origins_of
from postroad.delivery.sent_log import log_sent
from postroad.events_out.job import WEBHOOK_QUEUE
from postroad.gates.controller import GateController
from postroad.gates.settings_limits import SettingsLimits, gates_of
from postroad.mail.address import ascii_domain
from postroad.mail.dkim_keys import load_signers
from postroad.operations.touches import sync_queue_to_ledger
from postroad.queue import Gate, Handle, Prepare, Queue, Worker, WorkerOptions
from postroad.settings import QueueSettings, Settings
from postroad.shaping.shaper import Shaper

DEFAULT_IDLE_MS = WorkerOptions().idle_ms


class Work(NamedTuple):
    """How the jobs of a queue are handled."""

    handle: Handle
    prepare: Prepare | None = None


@asynccontextmanager
async def open_worker(
    context: AppContext, queue: Queue, limits: QueueSettings, *, name: str, idle_ms: int = DEFAULT_IDLE_MS
) -> AsyncIterator[Worker]:
    """Open what handles the jobs of a queue, and yield a worker that is ready to run.

    Args:
        context: The open parts.
        queue: A queue of `WORK`.
        limits: Settings of the queue, for this worker.
        name: Unique among the workers that run.
        idle_ms: Poll interval when no job is ready, in ms of real time.

    Raises:
        ConfigError: A key or a file that the settings name cannot be read.
        UnavailableError: The database or the queue is unavailable.
    """
    async with WORK[queue.name](context, queue, limits) as work:
        yield Worker(
            queue,
            work.handle,
            concurrency=limits.concurrency,
            prepare=work.prepare,
            clock=context.clock,
            options=WorkerOptions(name=name, lease_ms=limits.lease_ms, drain_ms=limits.drain_ms, idle_ms=idle_ms),
        )


@asynccontextmanager
async def open_send_handler(context: AppContext, queue: Queue, limits: QueueSettings) -> AsyncIterator[SendHandler]:
    """Open the routes, shaping and signing that deliver mail. Shaping changes gates as long as this is open.

    Raises:
        ConfigError: A key or a file that the settings name cannot be read.
    """
    settings, clock = context.settings, context.clock
    registry = context.metrics.registry if context.metrics is not None else None
    shaper = Shaper(
        engine=context.engine,
        gates=context.gates(queue, limits),
        shaping=context.shaping,
        clock=clock,
        registry=registry,
    )
    dkim = load_signers(settings, os.environ)
    async with open_routes(
        settings.routes,
        shaping=context.shaping,
        resolver=await context.resolver(),
        engine=context.engine,
        clock=clock,
        rng=Random(),  # noqa: S311  (it chooses among equals)
        destinations=Destinations.of(settings.delivery, limits.concurrency),
    ) as routes:
        if registry is not None:
            registry.register(RouteMetrics(routes))
        steps = CompiledSteps(
            engine=context.engine,
            signer=context.signer,
            public_url=settings.public_url,
            clock=clock,
            dkim=dkim,
            services=settings.services,
        )
        handler = SendHandler(
            steps=steps,
            queue=queue,
            routes=routes,
            origins=origins_of(settings.senders),
            clock=clock,
            shaper=shaper,
        )
        async with shaper.running(), handler:
            yield handler


@asynccontextmanager
async def _deliver(context: AppContext, queue: Queue, limits: QueueSettings) -> AsyncIterator[Work]:
    await context.gates(queue, limits, starting=True).apply()
    settings = context.settings
    admission = Admission(
        context.engine,
        context.clock,
        context.hash_of,
        settings.cohort_breaker.source_field,
        settings.frequency,
        context.calendar,
    )
    async with open_send_handler(context, queue, limits) as handler:
        reporting = asyncio.create_task(log_sent(handler.counts, queue.name, context.clock))
        try:
            yield Work(handler, admission)
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)


@asynccontextmanager
async def _process_bounces(context: AppContext, queue: Queue, limits: QueueSettings) -> AsyncIterator[Work]:
    settings = context.settings
    mail_queues = [await context.queue(name) for name in MAIL_QUEUES]
    # The queue's own, as nothing here is of a sender, and one that has reports read one mail at a time.
    gates = [*gates_of(settings, limits)[:1], Gate(name=REPORTS_GATE, concurrency=1)]
    await GateController(context.engine, queue, [SettingsLimits(gates, starting=True)]).apply()

    async def sync_queues(ended: Sequence[int], resolved: Sequence[int]) -> None:
        for mail_queue in mail_queues:
            await sync_queue_to_ledger(mail_queue, ended, resolved)

    intake = Intake(engine=context.engine, queue=queue, clock=context.clock)
    keeping = asyncio.create_task(
        run_maintenance(
            context.engine, intake, settings.bounce, context.clock, window_ms=settings.web.webhooks.window_ms
        )
    )
    count = DeliveryMetrics(context.engine, context.metrics.registry).count if context.metrics is not None else None
    try:
        with MailReader() as read, ReportReader() as read_reports:
            handler = BounceHandler(
                engine=context.engine,
                rules=BounceRules(signer=context.signer, settings=settings.bounce, scope=settings.web.unsubscribe),
                read=read,
                reports=ReportRules(read=read_reports, domains=_domains(settings)),
                intake=intake,
                clock=context.clock,
                after_commit=AfterCommit(sync_queues, count),
            )
            yield Work(handler, handler.prepare)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@asynccontextmanager
async def _send_webhooks(context: AppContext, queue: Queue, limits: QueueSettings) -> AsyncIterator[Work]:
    gates = [*gates_of(context.settings, limits)[:1], *endpoint_gates(context)]
    await GateController(context.engine, queue, [SettingsLimits(gates, starting=True)]).apply()
    async with open_webhook_handler(context, queue, limits) as handler:
        yield Work(handler, handler.prepare)


def _domains(settings: Settings) -> tuple[str, ...]:
    """Return the domains that reports of receivers are kept for: of From, and of return paths."""
    names = {name for sender in settings.senders.values() for name in (sender.domain, sender.bounce_domain) if name}
    return tuple(sorted(ascii_domain(name.lower()) for name in names))


Serve = Callable[[AppContext, Queue, QueueSettings], AbstractAsyncContextManager[Work]]

WORK: Mapping[str, Serve] = {
    SEND_QUEUE: _deliver,
    WARMUP_QUEUE: _deliver,
    BOUNCE_QUEUE: _process_bounces,
    WEBHOOK_QUEUE: _send_webhooks,
}
"""Every queue that `postroad worker` serves."""
