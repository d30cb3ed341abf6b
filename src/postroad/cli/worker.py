"""postroad worker and postroad recorder: processes that work off queues, and those that write down what happened."""

from __future__ import annotations

import gc
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, NamedTuple

import typer

from postroad.app.context import AppContext, Role, open_context
from postroad.app.recorder import run_recorder
from postroad.app.worker import WORK, open_worker
from postroad.cli.event_loop import run
from postroad.cli.options import parse_duration_option_ms, parse_rate
from postroad.cli.row_limit import MAX_NUMBER
from postroad.cli.signals import start_logging, stop_on_signals
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import UsageError, unknown_name
from postroad.local.run_watch import watch_runs
from postroad.queue import Queue, beating, this_process
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
async def measured_context(
    settings: Settings, queue_name: str, at: MetricsAt, *, role: Role, name: str = ""
) -> AsyncIterator[tuple[AppContext, Queue]]:
    """Open the parts and a queue, at which this process beats, and serve their metrics where that is asked for."""
    metrics = QueueMetrics() if at.port is not None else None
    async with open_context(settings, metrics=metrics) as context, AsyncExitStack() as stack:
        queue = await context.queue(queue_name)
        if metrics is not None and at.port is not None:
            port = await stack.enter_async_context(serve_metrics(metrics, [queue], host=at.host, port=at.port))
            log.info("metrics at http://%s:%d/metrics", at.host, port)
        await stack.enter_async_context(beating(partial(context.queue, queue_name), this_process(role, name)))
        yield context, queue


def worker(
    queue: Annotated[
        str | None, typer.Argument(help=f"Name of the queue: {' or '.join(WORK)}; unset: {SEND_QUEUE}.")
    ] = None,
    named: Annotated[str | None, typer.Option("--queue", help="Name of the queue, as an option.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Jobs at once in this process.", min=1, max=MAX_NUMBER)
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Limit of the whole queue, all workers together: 100/1s.")] = None,
    drain: Annotated[str | None, typer.Option(help="Longest time from SIGTERM to exit: 20s.")] = None,
    name: Annotated[str | None, typer.Option(help="Name in events and logs; unset: host and process.")] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Serve a queue until SIGTERM: deliver the messages of email:send or email:warmup, process the mails of
    bounce:process, or send the events of webhook:out.

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
            "rate": parse_rate(rate) if rate else configured.rate,
            "drain_ms": parse_duration_option_ms(drain) if drain else configured.drain_ms,
        }
    )
    start_logging(settings)
    metrics = MetricsAt(metrics_host, metrics_port)
    run(_work(settings, queue, limits, name or f"{socket.gethostname()}-{os.getpid()}", metrics))


def tune_gc() -> None:
    """Freeze import-time objects, so that the garbage collector skips them: 5 % of the processor time of a message."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


async def _work(settings: Settings, queue_name: str, limits: QueueSettings, name: str, at: MetricsAt) -> None:
    stop = stop_on_signals()
    tune_gc()
    async with (
        measured_context(settings, queue_name, at, role=Role.WORKER, name=name) as (context, queue),
        open_worker(context, queue, limits, name=name) as worker,
    ):
        log.info("worker %s serves %s: concurrency %d, rate %s", name, queue.name, limits.concurrency, limits.rate)
        report = await worker.run(stop)
    log.info("worker %s stopped: %s", name, report)


def recorder(
    name: Annotated[str | None, typer.Option(help="Name among the recorders; unset: the host's.")] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Write events of the queues into the ledger until SIGTERM. One recorder is enough; several share the work.

    Whenever something new speaks against a list, it judges its cohorts, and pauses the guilty: `postroad cohort list`.
    When a run of the deployment `campaign` is cancelled or suspended in Prefect, it pauses that campaign.
    It gives the endpoints of [webhooks_out] their events, which `postroad worker webhook:out` sends.

    A recorder that restarts under its name continues with the events that it had read before.
    """
    settings = Settings.load()
    start_logging(settings)
    metrics = MetricsAt(metrics_host, metrics_port)
    run(_record(settings, name or socket.gethostname(), metrics))


async def _record(settings: Settings, name: str, at: MetricsAt) -> None:
    stop = stop_on_signals()
    async with measured_context(settings, SEND_QUEUE, at, role=Role.RECORDER, name=name) as (context, _):
        recorded = await run_recorder(context, name, stop, background=[partial(watch_runs, context)])
    log.info("recorder %s stopped: %d events recorded", name, recorded)
