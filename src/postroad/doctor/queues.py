"""Checks the database, the servers of the queue, the queues, and whether they match the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.delivery.job import SEND_QUEUE
from postroad.doctor.check import DEADLINE_S, Check
from postroad.doctor.context import DoctorContext
from postroad.errors import PostroadError
from postroad.operations.rebuild import missing_jobs
from postroad.printable import counted
from postroad.queue import Health, inspect_servers

UNWORKED_MS = 60_000
MISSING_JOBS = 100
"""Smaller numbers are not reported, because the counts vary while mail is moving."""


async def check_database(context: DoctorContext) -> Sequence[Check]:
    """Check that the database answers and has the schema of this version."""
    engine = await context.database()
    return [Check(part="database", health=Health.OK, seen=engine.url.render_as_string())]


async def check_servers(context: DoctorContext) -> Sequence[Check]:
    """Check each server of the queue separately."""
    url = await context.redis_url()
    sync_replicas = context.settings.queue(SEND_QUEUE).sync_replicas
    return [
        Check(part=finding.part, health=finding.health, seen=finding.seen, remedy=finding.remedy)
        for finding in await inspect_servers(url, sync_replicas=sync_replicas, durable=context.settings.redis_durable)
    ]


async def check_send_queue(context: DoctorContext) -> Sequence[Check]:
    """Check that the queue of mail can be opened, and count its jobs."""
    queue = await context.queue(SEND_QUEUE)
    stats = await queue.stats()
    waiting = stats.queued + stats.scheduled + stats.in_flight
    seen = f"{counted(waiting, 'job')}, {counted(stats.dead, 'dead letter')}, {stats.uncertain:,} uncertain"
    return [Check(part=f"queue {queue.name}", health=Health.OK, seen=seen)]


async def check_ledger(context: DoctorContext) -> Sequence[Check]:
    """Check that the queue has a job for each touch in progress. No check without a database."""
    queue = await context.queue(SEND_QUEUE)
    try:
        engine = await context.database()
    except PostroadError:
        return []  # The check of the database reports it.
    missing = await missing_jobs(engine, queue)
    if missing <= MISSING_JOBS:
        return []
    seen = f"the ledger has {counted(missing, 'message')} in progress without a job in the queue"
    remedy = "Run `postroad queue rebuild`; the maintenance flow does it every ten minutes."
    return [Check(part=f"queue {queue.name}", health=Health.WARN, seen=seen, remedy=remedy)]


async def check_invariants(context: DoctorContext) -> Sequence[Check]:
    """Check the invariants of the queue."""
    try:
        async with asyncio.timeout(DEADLINE_S):  # The audit itself may take longer.
            queue = await context.queue(SEND_QUEUE)
    except (PostroadError, TimeoutError):
        return []  # The check of the queue reports it.
    return [
        Check(part=f"queue {queue.name}", health=Health.FAIL, seen=violation, remedy="Run `postroad queue rebuild`.")
        for violation in await queue.audit()
    ]


async def check_bounce_queue(context: DoctorContext) -> Sequence[Check]:
    """Check that bounces and other returned mail are processed."""
    part = f"queue {BOUNCE_QUEUE}"
    stats = await (await context.queue(BOUNCE_QUEUE)).stats()
    seen = f"{counted(stats.queued, 'mail waits', 'mails wait')}, {counted(stats.dead, 'dead letter')}"
    if stats.oldest_ready_ms < UNWORKED_MS:
        return [Check(part=part, health=Health.OK, seen=seen)]
    seen += f", the oldest since {stats.oldest_ready_ms // 1000} s"
    remedy = "Is `postroad worker bounce:process` running, and fast enough?"
    return [Check(part=part, health=Health.WARN, seen=seen, remedy=remedy)]
