"""postroad worker and postroad recorder: processes that work off queues, and those that write down what happened."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, NamedTuple

import typer
from prometheus_client import Gauge

from postroad.advancing import PassAge
from postroad.cli.event_loop import run
from postroad.cli.options import MAX_NUMBER, read_duration_ms, read_rate
from postroad.cli.signals import start_logging, stop_on_signals
from postroad.cli.work import WORK
from postroad.delivery.cohorts.breaker import CohortBreaker
from postroad.delivery.job import SEND_QUEUE, WARMUP_QUEUE
from postroad.delivery.metrics import DeliveryMetrics
from postroad.delivery.record import Recorder
from postroad.errors import UsageError, unknown_name
from postroad.local.run_watch import watch_runs
from postroad.parts import Parts, Role, open_parts
from postroad.queue import Queue, Worker, beating, this_process
from postroad.queue.metrics import QueueMetrics, serve_metrics
from postroad.settings import QueueSettings, Settings

log = logging.getLogger(__name__)


MetricsPort = Annotated[
    int | None, typer.Option(help="Serve Prometheus metrics at this port; unset: none.", min=0, max=65535)
]
MetricsHost = Annotated[str, typer.Option(help="Address that metrics are served at; 0.0.0.0: every one.")]


class MetricsAt(NamedTuple):
    """Where metrics are served; port None: nowhere."""

    host: str
    port: int | None


@asynccontextmanager
async def measured_parts(
    settings: Settings, queue_name: str, at: MetricsAt, *, role: Role, name: str = ""
) -> AsyncIterator[tuple[Parts, Queue]]:
    """Open the parts and a queue, at which this process beats, and serve their metrics where that is asked for."""
    metrics = QueueMetrics() if at.port is not None else None
    async with open_parts(settings, metrics=metrics) as parts, AsyncExitStack() as stack:
        queue = await parts.queue(queue_name)
        if metrics is not None and at.port is not None:
            port = await stack.enter_async_context(serve_metrics(metrics, [queue], host=at.host, port=at.port))
            log.info("metrics at http://%s:%d/metrics", at.host, port)
        await stack.enter_async_context(beating(partial(parts.queue, queue_name), this_process(role, name)))
        yield parts, queue


def worker(
    queue: Annotated[
        str | None, typer.Argument(help=f"Name of the queue: {' or '.join(WORK)}; unset: {SEND_QUEUE}.")
    ] = None,
    named: Annotated[str | None, typer.Option("--queue", help="Name of the queue, said in another way.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Jobs at once in this process.", min=1, max=MAX_NUMBER)
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Limit of the whole queue, all workers together: 100/1s.")] = None,
    drain: Annotated[str | None, typer.Option(help="From SIGTERM to exit at the most: 20s.")] = None,
    name: Annotated[str | None, typer.Option(help="Name in events and logs; unset: host and process.")] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Work off a queue, until it is told to stop: deliver what is on email:send or email:warmup, judge what is on
    bounce:process.

    SIGTERM: claims nothing more, finishes what is on the wire, gives back the rest and exits 0 within --drain. A second
    signal exits at once. Any number of workers may run, on any number of hosts; the rate is shared.
    Defaults: the queue's section in postroad.toml, else as shipped: docs/reference/settings.md.
    """
    if queue and named and queue != named:
        raise UsageError(f"two queues are named, {queue!r} and {named!r}", remedy="Start a worker for each.")
    queue = queue or named or SEND_QUEUE
    if queue not in WORK:
        raise unknown_name("worker for a queue", queue, WORK)
    settings = Settings.load()
    configured = settings.queue(queue)
    limits = configured.model_copy(
        update={
            "concurrency": concurrency or configured.concurrency,
            "rate": read_rate(rate) if rate else configured.rate,
            "drain_ms": read_duration_ms(drain) if drain else configured.drain_ms,
        }
    )
    start_logging(settings)
    metrics = MetricsAt(metrics_host, metrics_port)
    run(_work(settings, queue, limits, name or f"{socket.gethostname()}-{os.getpid()}", metrics))


def spare_the_collector() -> None:
    """Let it look at what jobs leave behind, and not at all that was imported: 5 % of a message's CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _work(settings: Settings, queue_name: str, limits: QueueSettings, name: str, at: MetricsAt) -> None:
    stop = stop_on_signals()
    spare_the_collector()
    async with (
        measured_parts(settings, queue_name, at, role=Role.WORKER, name=name) as (parts, queue),
        WORK[queue_name](parts, queue, limits) as work,
    ):
        worker = Worker(
            queue,
            work.handle,
            concurrency=limits.concurrency,
            lease_ms=limits.lease_ms,
            drain_ms=limits.drain_ms,
            prepare=work.prepare,
            name=name,
        )
        log.info("worker %s serves %s: concurrency %d, rate %s", name, queue.name, limits.concurrency, limits.rate)
        report = await worker.run(stop)
    log.info("worker %s stopped: %s", name, report)


def recorder(
    name: Annotated[str | None, typer.Option(help="Name among the recorders; unset: the host's.")] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Write what happened into the ledger, until it is told to stop. One is enough; several share the work.

    Whenever something new speaks against a list, it judges its cohorts, and pauses the guilty: `postroad cohort list`.
    When a run of the deployment `campaign` is cancelled or suspended in Prefect, it pauses that campaign.

    A recorder that is started again under its name goes on at once with what it had in hand when it died.
    """
    settings = Settings.load()
    start_logging(settings)
    metrics = MetricsAt(metrics_host, metrics_port)
    run(_record(settings, name or socket.gethostname(), metrics))


async def _record(settings: Settings, name: str, at: MetricsAt) -> None:
    stop = stop_on_signals()
    async with measured_parts(settings, SEND_QUEUE, at, role=Role.RECORDER, name=name) as (parts, queue):
        metrics = DeliveryMetrics(parts.engine, parts.metrics.registry) if parts.metrics is not None else None
        recorder, seeds = (
            Recorder(
                engine=parts.engine, queue=of, clock=parts.clock, name=name, bounce=settings.bounce, metrics=metrics
            )
            for of in (queue, await parts.queue(WARMUP_QUEUE))
        )
        breaker = CohortBreaker(engine=parts.engine, settings=settings, clock=parts.clock)
        age = PassAge(parts)
        if parts.metrics is not None:
            _measure(parts.metrics, lambda: max(recorder.lag_seconds, seeds.lag_seconds), lambda: age.seconds)
        log.info("recorder %s records %s and %s", name, SEND_QUEUE, WARMUP_QUEUE)
        endless = (breaker.keep(), watch_runs(parts), age.keep())
        background = [asyncio.create_task(work) for work in endless]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(recorder.run(stop))
                group.create_task(seeds.run(stop))
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
    log.info("recorder %s stopped: %d events recorded", name, recorder.recorded + seeds.recorded)


def _measure(metrics: QueueMetrics, lag_s: Callable[[], float], advance_age_s: Callable[[], float]) -> None:
    lag = Gauge(
        "postroad_recorder_lag_seconds",
        "Age of the oldest event that this recorder has not recorded",
        registry=metrics.registry,
    )
    lag.set_function(lag_s)
    age = Gauge(
        "postroad_last_advance_age_seconds",
        "Time since the last pass over the running campaigns",
        registry=metrics.registry,
    )
    age.set_function(advance_age_s)
