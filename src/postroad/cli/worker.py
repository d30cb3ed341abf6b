"""postroad worker and postroad recorder: processes that work off queues, and those that write down what happened."""

from __future__ import annotations

import gc
import logging
import os
import socket
from functools import partial
from typing import Annotated

import typer

from postroad.app.context import Role
from postroad.app.recorder import run_recorder
from postroad.app.worker import WORK, open_worker
from postroad.cli.event_loop import run
from postroad.cli.options import MetricsAt, MetricsHost, MetricsPort, parse_duration_option_ms, parse_rate
from postroad.cli.role_process import open_role
from postroad.cli.row_limit import MAX_NUMBER
from postroad.cli.signals import STOP_WITHIN_S, start_logging, stop_on_signals
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import UsageError, unknown_name
from postroad.local.run_watch import watch_runs
from postroad.settings import QueueSettings, Settings

log = logging.getLogger(__name__)

AFTER_DRAIN_S = 5.0
"""Time from the end of the drain to the exit."""


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
    stop = stop_on_signals(limits.drain_ms / 1000 + AFTER_DRAIN_S)
    tune_gc()
    async with open_role(settings, Role.WORKER, queue_name, at, stop, name=name) as process:
        queue = await process.open_queue()
        async with open_worker(process.context, queue, limits, name=name) as worker:
            process.ready()
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
    stop = stop_on_signals(STOP_WITHIN_S)
    async with open_role(settings, Role.RECORDER, SEND_QUEUE, at, stop, name=name) as process:
        background = [partial(watch_runs, process.context)]
        recorded = await run_recorder(process.context, name, stop, background=background, ready=process.ready)
    log.info("recorder %s stopped: %d events recorded", name, recorded)
