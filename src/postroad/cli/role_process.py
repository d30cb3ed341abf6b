"""What the processes that run until SIGTERM have in common: heartbeats, metrics, health, notifications to systemd."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from prometheus_client import Gauge

from postroad.app.context import AppContext, Role, open_context
from postroad.app.readiness import OK, Dependency, Readiness, readiness_of
from postroad.cli.options import MetricsAt
from postroad.errors import UnavailableError
from postroad.monitor_server import PathReply, serve_paths
from postroad.queue import Queue, beating, this_process
from postroad.queue.metrics import QueueMetrics, metrics_reply
from postroad.sd_notify import READY, SystemdNotifier
from postroad.settings import Settings

log = logging.getLogger(__name__)

OpenQueue = Callable[[], Awaitable[Queue]]


class RoleProcess(NamedTuple):
    """An open process. Its role calls ``ready`` once it works."""

    context: AppContext
    open_queue: OpenQueue
    ready: Callable[[], None]


@asynccontextmanager
async def open_role(
    settings: Settings,
    role: Role,
    queue_name: str,
    at: MetricsAt,
    stop: asyncio.Event,
    *,
    name: str = "",
    required: frozenset[Dependency] = frozenset(Dependency),
) -> AsyncIterator[RoleProcess]:
    """Open the parts of a process, send its heartbeats, report it to systemd, and serve its metrics and health.

    Args:
        settings: The settings.
        role: What the process does.
        queue_name: Queue that it uses, and at which it sends heartbeats. If Redis is required, it is opened at once.
        at: Address of metrics and health.
        stop: Is set when the process is asked to stop.
        name: Its name in logs and heartbeats. Empty: made from host and process id.
        required: Dependencies without which the process is not ready.

    Yields:
        The process.
    """
    async with open_context(settings, metrics=QueueMetrics() if at.port is not None else None) as context:
        open_queue = partial(context.queue, queue_name)
        if Dependency.REDIS in required:
            await open_queue()
        else:
            open_queue = partial(context.running_queue, queue_name)
        readiness = readiness_of(context, open_queue, required, stop)
        systemd = SystemdNotifier(os.environ)

        def ready() -> None:
            readiness.running = True
            systemd.send(READY)

        async with (
            _serving(context, queue_name, open_queue, readiness, at),
            systemd.watching(stop),
            beating(open_queue, this_process(role, name)),
        ):
            yield RoleProcess(context, open_queue, ready)


@asynccontextmanager
async def _serving(
    context: AppContext, queue_name: str, open_queue: OpenQueue, readiness: Readiness, at: MetricsAt
) -> AsyncIterator[None]:
    metrics = context.metrics
    if metrics is None or at.port is None:
        yield
        return

    up = Gauge(
        "postroad_dependency_up",
        "1 if this process can use what it depends on, see /readyz",
        ["dependency"],
        registry=metrics.registry,
    )

    async def measure() -> PathReply:
        for name, result in (await readiness.results()).items():
            up.labels(name).set(result == OK)
        try:
            return await metrics_reply(metrics, [await open_queue()])
        except UnavailableError:
            metrics.set_down(queue_name)
            return await metrics_reply(metrics, [])

    paths = {"/metrics": measure, "/livez": readiness.live_reply, "/readyz": readiness.ready_reply}
    try:
        async with serve_paths(paths, host=at.host, port=at.port) as port:
            log.info("metrics and health at http://%s:%d: %s", at.host, port, ", ".join(paths))
            yield
    finally:
        await readiness.close()
