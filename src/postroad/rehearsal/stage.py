"""The parts of a rehearsal: all real, in a folder of their own, by one clock, and no way out but the sandbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import sqlalchemy as sa

from postroad.clock import ScaledClock
from postroad.delivery.admit import Admission
from postroad.delivery.cohorts.breaker import CohortBreaker
from postroad.delivery.gate_controller import GateController
from postroad.delivery.job import SEND_QUEUE
from postroad.delivery.limits import SettingsLimits, gates_of
from postroad.delivery.opening import open_delivery
from postroad.delivery.record import Recorder
from postroad.delivery.shaping.file import shaped_senders
from postroad.delivery.shaping.source import ShapingLimits
from postroad.embedded import stop_redis
from postroad.parts import Parts, open_parts
from postroad.queue import Queue, Worker
from postroad.rehearsal.judging import Judging
from postroad.sandbox import Cast, Keep, Sandbox, SandboxConfig
from postroad.settings import RouteSettings, Settings, TimeoutSettings, TlsMode
from postroad.store.engine import write
from postroad.store.mail_domain import KnownDomain, keep_domains

IDLE_MS = 2
"""How often the worker asks, in real time: little enough to be nothing on the campaign's clock."""
LEAST_TIMEOUT_S = 5.0
"""However fast the clock: this is real time, for a machine that is busy."""
SETTLE_WITHIN_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class RehearsalOptions:
    """What is rehearsed. ``speed`` is the most that the clock may run at; ``shares`` are those of the personas."""

    campaign: Path
    shares: dict[str, float]
    speed: float
    recipients: int | None
    within_ms: int
    require_authentication: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RehearsalEnvironment:
    """An open rehearsal."""

    parts: Parts
    clock: ScaledClock
    queue: Queue
    sandbox: Sandbox
    cast: Cast

    def teach_providers(self) -> None:
        """Write down which provider each domain of the audience is, as a lookup would. DNS is not asked."""
        with write(self.parts.engine) as connection:
            domains = connection.execute(sa.text("SELECT DISTINCT domain FROM recipient")).scalars()
            found = [(domain, self.cast.provider_of(domain)) for domain in domains]
            expires_at = self.clock.now() + timedelta(days=3650)
            keep_domains(
                connection,
                [KnownDomain(domain, provider, provider, expires_at) for domain, provider in found if provider],
            )


@asynccontextmanager
async def open_stage(
    order: RehearsalOptions, settings: Settings, folder: Path, clock: ScaledClock
) -> AsyncIterator[RehearsalEnvironment]:
    """Start a queue server, a database and a sandbox in the folder. The user's own are never opened.

    Raises:
        UnavailableError: one of them does not start.
    """
    config = SandboxConfig(
        directory=str(folder / "sandbox"),
        keep=Keep.LEDGER,
        personas=order.shares,
        require_authentication=order.require_authentication,
        # Sessions are left open as long as in real life, where the clock runs as fast as the world.
        idle_timeout_ms=int(300_000 * max(order.speed, 1)),
    )
    async with Sandbox(config, rng=Random(order.seed), clock=clock) as sandbox:  # noqa: S311  (which mail is refused)
        try:
            async with open_parts(_settings(settings, folder, sandbox, order.speed), clock=clock) as parts:
                yield RehearsalEnvironment(
                    parts=parts,
                    clock=clock,
                    queue=await parts.queue(SEND_QUEUE),
                    sandbox=sandbox,
                    cast=Cast(order.shares),
                )
        finally:
            await asyncio.to_thread(stop_redis, folder)


def _settings(settings: Settings, folder: Path, sandbox: Sandbox, speed: float) -> Settings:
    """The user's settings, with every server and every route replaced: made anew, so that none can be left over."""
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
    """Who works while the rehearsal runs. A task that ends before its time has failed."""

    worker: Worker
    slots: int
    judging: Judging
    tasks: tuple[asyncio.Task[object], ...]


@asynccontextmanager
async def open_crew(stage: RehearsalEnvironment, speed: float) -> AsyncIterator[RehearsalWorkers]:
    """Run what `postroad worker` and `postroad recorder` run, in this process and by the rehearsal's clock.

    Whatever those two come to run besides belongs here as well. ``speed``: the most that the clock will run at.
    """
    parts, settings = stage.parts, stage.parts.settings
    limits = settings.queue(SEND_QUEUE)
    recorder = Recorder(
        engine=parts.engine, queue=stage.queue, clock=stage.clock, name="rehearsal", bounce=settings.bounce
    )
    async with open_delivery(
        settings,
        engine=parts.engine,
        queue=stage.queue,
        gates=_gates(stage),
        signer=parts.signer,
        resolver=await parts.resolver(),
        clock=stage.clock,
        environ=os.environ,
    ) as delivery:
        worker = Worker(
            stage.queue,
            delivery,
            concurrency=limits.concurrency,
            # An hour of real time. Nobody else is there to take a job over, and leases are renewed by the real clock.
            lease_ms=int(3_600_000 * max(speed, 1)),
            drain_ms=SETTLE_WITHIN_MS,
            idle_ms=IDLE_MS,
            prepare=Admission(parts.engine, stage.clock, parts.hash_of, settings.cohort_breaker.source_field),
            name="rehearsal",
            clock=stage.clock,
        )
        stop, stop_recording = asyncio.Event(), asyncio.Event()
        work: asyncio.Task[object] = asyncio.create_task(worker.run(stop))
        record: asyncio.Task[object] = asyncio.create_task(recorder.run(stop_recording))
        breaker = CohortBreaker(engine=parts.engine, settings=settings, clock=stage.clock)
        judging = Judging(breaker, recorder, stage.clock)
        try:
            yield RehearsalWorkers(worker=worker, slots=limits.concurrency, judging=judging, tasks=(work, record))
        finally:
            stop.set()
            await asyncio.wait([work])
            stop_recording.set()
            await asyncio.wait([record])
        await recorder.drain()


def _gates(stage: RehearsalEnvironment) -> GateController:
    """Return the controller of the gates: limits of settings and receivers, no caps of warmup."""
    parts, settings = stage.parts, stage.parts.settings
    limits = SettingsLimits(gates_of(settings, settings.queue(SEND_QUEUE)), starting=True)
    shaping = ShapingLimits(parts.engine, parts.shaping, shaped_senders(settings), stage.clock)
    return GateController(parts.engine, stage.queue, [limits], expiring=shaping)


def _timeouts(speed: float) -> TimeoutSettings:
    """Waiting for a server that says nothing takes real time; less of it where the clock runs faster."""
    least_ms = int(LEAST_TIMEOUT_S * 1000)
    usual = TimeoutSettings().model_dump()
    return TimeoutSettings(**{name: max(int(ms / speed), least_ms) for name, ms in usual.items()})
