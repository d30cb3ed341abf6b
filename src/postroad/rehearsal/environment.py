"""Opens what a rehearsal runs on: real parts in a folder of their own, one clock, and the sandbox as the only route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import sqlalchemy as sa

from postroad.app.context import AppContext, open_context
from postroad.app.recorder import cohort_breaker
from postroad.app.worker import open_worker
from postroad.clock import ScaledClock
from postroad.delivery.job import SEND_QUEUE
from postroad.dns.providers import OTHER_PROVIDERS
from postroad.embedded import stop_redis
from postroad.queue import Queue, Worker
from postroad.rehearsal.cohort_watch import CohortWatch
from postroad.sandbox import PersonaMap, Sandbox, SandboxConfig, StorageMode
from postroad.settings import RouteSettings, Settings, TimeoutSettings, TlsMode
from postroad.store.engine import write
from postroad.store.mail_domain import KnownDomain, save_domains

IDLE_MS = 2
"""Poll interval of the worker, in ms of real time: short on the campaign's clock as well."""
MIN_TIMEOUT_S = 5.0
"""Shortest SMTP timeout, in seconds of real time, for a busy machine."""
DRAIN_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class RehearsalOptions:
    """What is rehearsed.

    Attributes:
        campaign: Path of its campaign.yaml.
        shares: Share of the recipients' domains by persona.
        speed: Maximum speed of the clock; 1 is real time.
        recipients: Rows of the audience's file. None: all.
        within_ms: Gives up after so much of the campaign's time, in ms.
        warmup_day: Day of their plans on which warming senders are at the launch; 1 is the first.
        require_authentication: Providers refuse mail that is unsigned or unaligned.
        seed: Of what providers decide by chance.
    """

    campaign: Path
    shares: dict[str, float]
    speed: float
    recipients: int | None
    within_ms: int
    warmup_day: int = 1
    require_authentication: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RehearsalEnvironment:
    """An open rehearsal."""

    context: AppContext
    clock: ScaledClock
    queue: Queue
    sandbox: Sandbox
    cast: PersonaMap

    def store_providers(self) -> None:
        """Store the provider of each domain of the audience, as a lookup would. DNS is not asked."""
        expires_at = self.clock.now() + timedelta(days=3650)
        with write(self.context.engine) as connection:
            domains = connection.execute(sa.text("SELECT DISTINCT domain FROM recipient")).scalars()
            by_domain = [(domain, self.cast.provider_of(domain)) for domain in domains]
            save_domains(
                connection,
                [
                    KnownDomain(domain, provider or OTHER_PROVIDERS, provider or domain, expires_at)
                    for domain, provider in by_domain
                ],
            )


@asynccontextmanager
async def open_environment(
    options: RehearsalOptions, settings: Settings, folder: Path, clock: ScaledClock
) -> AsyncIterator[RehearsalEnvironment]:
    """Start a queue server, a database and a sandbox in the folder. The user's own are never opened.

    Raises:
        UnavailableError: One of them does not start.
    """
    config = SandboxConfig(
        directory=str(folder / "sandbox"),
        keep=StorageMode.LEDGER,
        personas=options.shares,
        require_authentication=options.require_authentication,
        # Sessions are left open as long as in real life, where the clock runs as fast as the world.
        idle_timeout_ms=int(300_000 * max(options.speed, 1)),
    )
    async with Sandbox(config, rng=Random(options.seed), clock=clock) as sandbox:  # noqa: S311  (which mail is refused)
        try:
            async with open_context(_settings(settings, folder, sandbox, options.speed), clock=clock) as context:
                yield RehearsalEnvironment(
                    context=context,
                    clock=clock,
                    queue=await context.queue(SEND_QUEUE),
                    sandbox=sandbox,
                    cast=PersonaMap(options.shares),
                )
        finally:
            await asyncio.to_thread(stop_redis, folder)


def _settings(settings: Settings, folder: Path, sandbox: Sandbox, speed: float) -> Settings:
    """Return the user's settings with every server and every route replaced.

    A route is made from scratch, so that none of its hosts or passwords can be left over.
    """
    routes = {
        name: RouteSettings(
            host=sandbox.host,
            port=sandbox.port,
            tls=TlsMode.NONE,
            connections=route.connections,
            messages_per_connection=route.messages_per_connection,
            shaped=route.is_shaped,
            timeouts=_timeouts(speed),
        )
        for name, route in settings.routes.items()
    }
    own = {
        "state_dir": folder,
        "redis_url": None,
        "database_url": None,
        "secret_key": None,
        "secret_keys": (),
        "campaigns": (),
    }
    return settings.model_copy(update={**own, "routes": routes})


@dataclass(frozen=True, kw_only=True)
class RehearsalWorkers:
    """What works while the rehearsal runs. A task that ends before its time has failed."""

    worker: Worker
    slots: int
    cohorts: CohortWatch
    tasks: tuple[asyncio.Task[object], ...]


@asynccontextmanager
async def open_workers(environment: RehearsalEnvironment, speed: float) -> AsyncIterator[RehearsalWorkers]:
    """Run what `postroad worker` and `postroad recorder` run, in this process and by the rehearsal's clock.

    Args:
        environment: The open rehearsal.
        speed: Maximum speed of its clock.
    """
    context, queue = environment.context, environment.queue
    limits = context.settings.queue(SEND_QUEUE).model_copy(
        # An hour of real time: no other worker can take a job over, and leases are renewed by the real clock.
        update={"lease_ms": int(3_600_000 * max(speed, 1)), "drain_ms": DRAIN_MS}
    )
    recorder = context.recorder(queue, "rehearsal")
    async with open_worker(context, queue, limits, name="rehearsal", idle_ms=IDLE_MS) as worker:
        stop, stop_recording = asyncio.Event(), asyncio.Event()
        work: asyncio.Task[object] = asyncio.create_task(worker.run(stop))
        record: asyncio.Task[object] = asyncio.create_task(recorder.run(stop_recording))
        cohorts = CohortWatch(cohort_breaker(context), recorder, environment.clock)
        try:
            yield RehearsalWorkers(worker=worker, slots=limits.concurrency, cohorts=cohorts, tasks=(work, record))
        finally:
            stop.set()
            await asyncio.wait([work])
            stop_recording.set()
            await asyncio.wait([record])
        await recorder.drain()


def _timeouts(speed: float) -> TimeoutSettings:
    """Return SMTP timeouts for a fast clock: waiting for a silent server takes real time."""
    min_ms = int(MIN_TIMEOUT_S * 1000)
    usual = TimeoutSettings().model_dump()
    return TimeoutSettings(**{name: max(int(ms / speed), min_ms) for name, ms in usual.items()})
