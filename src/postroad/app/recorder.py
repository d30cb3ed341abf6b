"""What a recorder runs: it writes events of the queues into the ledger, pauses failed cohorts, and feeds webhooks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from prometheus_client import Gauge

from postroad.app.advance import PassAge
from postroad.app.context import AppContext
from postroad.app.webhooks import feeding
from postroad.delivery.job import MAIL_QUEUES
from postroad.delivery.metrics import DeliveryMetrics
from postroad.senders.cohort_breaker import CohortBreaker

log = logging.getLogger(__name__)


def cohort_breaker(context: AppContext) -> CohortBreaker:
    """Return what pauses the cohorts of a list that bounces or complains too often."""
    return CohortBreaker(engine=context.engine, settings=context.settings, clock=context.clock)


async def run_recorder(
    context: AppContext,
    name: str,
    stop: asyncio.Event,
    *,
    background: Sequence[Callable[[], Coroutine[object, object, None]]] = (),
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Record what the queues of mail report, check cohorts, and feed the endpoints of webhooks, until it is stopped.

    Args:
        context: The open parts. Where it has metrics, those of the recorder are added.
        name: Name among the recorders. One that starts under the name of another continues its work.
        stop: Ends it; what was read is recorded first.
        background: Further endless work of the process. It is started with the recorders and cancelled at the end.
        ready: Called once the recorders read.

    Returns:
        How many events were recorded.

    Raises:
        UnavailableError: The queue refuses this client.
    """
    metrics = DeliveryMetrics(context.engine, context.metrics.registry) if context.metrics is not None else None
    recorders = [context.recorder(await context.queue(queue), name, metrics) for queue in MAIL_QUEUES]
    age = PassAge(context)
    if context.metrics is not None:
        lag = Gauge(
            "postroad_recorder_lag_seconds",
            "Age of the oldest event that this recorder has not recorded",
            registry=context.metrics.registry,
        )
        lag.set_function(lambda: max(recorder.lag_seconds for recorder in recorders))
        Gauge(
            "postroad_last_advance_age_seconds",
            "Time since the last pass over the running campaigns",
            registry=context.metrics.registry,
        ).set_function(lambda: age.seconds)
    log.info("recorder %s records %s", name, " and ".join(MAIL_QUEUES))
    endless_work = (cohort_breaker(context).run_forever, age.poll, *await feeding(context), *background)
    endless = [asyncio.create_task(work()) for work in endless_work]
    try:
        async with asyncio.TaskGroup() as group:
            for recorder in recorders:
                group.create_task(recorder.run(stop))
            ready()
    finally:
        for task in endless:
            task.cancel()
        await asyncio.gather(*endless, return_exceptions=True)
    return sum(recorder.recorded for recorder in recorders)
