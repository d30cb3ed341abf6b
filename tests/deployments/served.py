"""The metrics that the processes serve, with their labels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from postroad.app.context import Role
from postroad.app.recorder import run_recorder
from postroad.app.worker import WORK, open_worker
from postroad.bounce.intake import BOUNCE_QUEUE
from postroad.bounce.sources.metrics import InboundMetrics, SourceMetrics
from postroad.cli.options import MetricsAt
from postroad.cli.role_process import RoleProcess, open_role
from postroad.delivery.job import SEND_QUEUE
from postroad.queue import Gate, Job, Lane
from postroad.settings import Settings
from tests.kit.waiting import until

SETTINGS = """
state_dir = "state"
redis_url = "{redis_url}"
[senders.news]
address = "news@example.com"
route = "relay"
postal_address = "1 Post Road, Milestone"
[routes.relay]
host = "127.0.0.1"
port = 1
tls = "none"
[webhooks_out.shop]
url = "https://shop.example.com/hook"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
[bounce.sources.box]
kind = "maildir"
path = "box"
"""


def settings_of(folder: Path, redis_url: str) -> Settings:
    (folder / "postroad.toml").write_text(SETTINGS.format(redis_url=redis_url))
    return Settings.load(folder / "postroad.toml")


async def served_metrics(settings: Settings) -> dict[str, set[str]]:
    """Open each role as its command does, and return the labels of each metric that one of them serves."""
    found: dict[str, set[str]] = {}
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        collectors = stack.enter_context(registered())

        async def opened(role: Role, queue_name: str) -> RoleProcess:
            at = MetricsAt("127.0.0.1", 0)
            return await stack.enter_async_context(open_role(settings, role, queue_name, at, stop))

        processes = [await opened(Role.WORKER, queue_name) for queue_name in WORK]
        for process, queue_name in zip(processes, WORK, strict=True):
            queue = await process.open_queue()
            await stack.enter_async_context(open_worker(process.context, queue, settings.queue(queue_name), name="w"))
        recorder = await opened(Role.RECORDER, SEND_QUEUE)
        reads = asyncio.Event()
        recording = asyncio.create_task(run_recorder(recorder.context, "r", stop, ready=reads.set))
        await reads.wait()
        inbound, watch = await opened(Role.INBOUND, BOUNCE_QUEUE), await opened(Role.BOUNCE_WATCH, BOUNCE_QUEUE)
        InboundMetrics(registry_of(inbound))
        SourceMetrics(registry_of(watch), ["box"])
        await _use(recorder)
        for process in (*processes, recorder, inbound, watch):
            queue = await process.open_queue()
            assert process.context.metrics is not None
            await process.context.metrics.refresh([queue])
        for collector in collectors:
            for name, labels in exposed(collector):
                found.setdefault(name, set()).update(labels)
        stop.set()
        await recording
    return found


async def _use(process: RoleProcess) -> None:
    """Give the queue one of everything that it exports."""
    queue = await process.open_queue()
    await queue.set_gate(Gate(name="queue", concurrency=5))
    await queue.enqueue(Lane(name="a", gates=("queue",)), [Job(id="1", payload=b"")])

    async def beats() -> bool:
        return bool(await queue.processes() and (await queue.stats()).groups)

    await until(beats)


def registry_of(process: RoleProcess) -> CollectorRegistry:
    assert process.context.metrics is not None
    return process.context.metrics.registry


@contextmanager
def registered() -> Iterator[list[Collector]]:
    """Collect what is registered with any registry."""
    found: list[Collector] = []
    register = CollectorRegistry.register

    def registering(registry: CollectorRegistry, collector: Collector) -> None:
        found.append(collector)
        register(registry, collector)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CollectorRegistry, "register", registering)
        yield found


def exposed(collector: Collector) -> Iterator[tuple[str, set[str]]]:
    """Yield the series of a collector, each with its labels."""
    if isinstance(collector, (Counter, Gauge, Histogram)):
        # A metric with labels has no sample before its first use.
        for n in range(1, 5):
            with suppress(ValueError):
                collector.labels(*["x"] * n)
    for family in collector.collect():
        for sample in family.samples:
            yield sample.name, {*sample.labels}
