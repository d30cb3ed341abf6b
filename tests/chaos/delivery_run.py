"""A run of a whole campaign from ledger to provider, while its processes, its queue and its provider are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import sqlalchemy as sa

from postroad.app.context import ready_engine
from postroad.campaign.status import summary
from postroad.delivery.job import SEND_QUEUE
from postroad.errors import UnavailableError
from postroad.sandbox import Fault, RulePhase, SandboxConfig, SandboxRule, StorageMode
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from tests.chaos.delivery_scene import WORKERS, DeliveryProcesses, DeliveryScene, Provider
from tests.chaos.plan import ChaosFault, PlannedFault, faults
from tests.chaos.server import Fsync, Server, ServerKind, tell, version_of
from tests.end_to_end.site import Site, open_site

CONCURRENCY = 20

LEASE_S = 2

FINISH_S = 150.0

DOMAINS = ("gmail.com", "outlook.com", "yahoo.com", "mailbox.example")

WEIGHTS = {
    ChaosFault.KILL_WORKER: 4,
    ChaosFault.FREEZE_WORKER: 1,
    ChaosFault.KILL_RECORDER: 2,
    ChaosFault.KILL_SERVER: 2,
    ChaosFault.CUT_POWER: 2,
    ChaosFault.EMPTY_SERVER: 1,
    ChaosFault.FREEZE_SERVER: 1,
    ChaosFault.RESTART_PROVIDER: 1,
    ChaosFault.LOCK_DATABASE: 1,
    ChaosFault.KILL_CLIENTS: 1,
    ChaosFault.FLUSH_SCRIPTS: 1,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings of a run."""

    seed: int
    seconds: float
    kind: ServerKind = ServerKind.VALKEY
    binary: Path
    every_s: float = 1.5
    mails_per_s: int = 40

    @property
    def audience(self) -> int:
        return round(self.seconds * self.mails_per_s)


@dataclass(kw_only=True)
class Result:
    """Faults of a run, and the outcome for the audience."""

    server: str
    audience: int
    faults: Counter[str]
    counts: dict[TouchState, int]
    taken: int
    """Messages that the provider has."""
    twice: list[str]
    """Recipients with two messages at the provider."""
    contradicted: list[str]
    """Recipients for whom ledger and provider contradict each other."""
    allowed_unknown: int
    why_unknown: dict[str, int]
    audit: list[str]
    seconds: float
    logs: str = field(default="", repr=False)

    @property
    def missed(self) -> int:
        """Recipients without a known outcome."""
        return self.audience - sum(n for state, n in self.counts.items() if state.ended)

    @property
    def unknown(self) -> int:
        return self.counts.get(TouchState.UNKNOWN, 0)

    @property
    def ok(self) -> bool:
        return not (self.missed or self.twice or self.contradicted or self.audit or self.unknown > self.allowed_unknown)


async def run(setting: Setting, set_env: Callable[[str, str], None] = os.environ.__setitem__) -> Result:
    """Send a campaign during the faults, let it finish, and compare ledger and provider."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        async with _scene(setting, folder, set_env) as scene:
            await scene.site.launch(_audience(setting))
            await _inject_faults(setting, scene)
            await _finish(scene)
            result = await _compare(setting, scene)
            result.logs = "\n".join(f"--- {log}\n{scene.site.log(log)[-8_000:]}" for log in ("worker", "recorder"))
    result.seconds = time.monotonic() - started_s
    return result


@asynccontextmanager
async def _scene(setting: Setting, folder: Path, set_env: Callable[[str, str], None]) -> AsyncIterator[DeliveryScene]:
    # The content is not stored, because the provider's log lists all messages.
    sandbox = SandboxConfig(
        directory=str(folder / "sandbox"),
        keep=StorageMode.LEDGER,
        rules=(SandboxRule(phase=RulePhase.DOT, fault=Fault(delay_ms=50)),),
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server.running(setting.binary, folder, Fsync.EVERYSEC))
        site = await stack.enter_async_context(
            open_site(
                folder,
                server,
                set_env,
                concurrency=CONCURRENCY,
                rate=f"{setting.mails_per_s}/1s",
                lease=f"{LEASE_S}s",
                sandbox=sandbox,
            )
        )
        provider = Provider(site, stack)
        processes = await stack.enter_async_context(DeliveryProcesses.running(site))
        yield DeliveryScene(site=site, server=server, processes=processes, provider=provider)


def _audience(setting: Setting) -> list[str]:
    rng = Random(setting.seed)
    # One in fifty does not exist, and the provider bounces it.
    return [
        f"reader{n}{'+550-5.1.1' if rng.random() < 0.02 else ''}@{rng.choice(DOMAINS)}" for n in range(setting.audience)
    ]


async def _inject_faults(setting: Setting, scene: DeliveryScene) -> None:
    planned = faults(Random(setting.seed), WEIGHTS, seconds=setting.seconds, every_s=setting.every_s)
    await scene.site.until(lambda: len(scene.site.received()) > 0)
    begun_s = time.monotonic()
    async with asyncio.TaskGroup() as under_way:
        for fault in planned:
            await asyncio.sleep(max(begun_s + fault.at_s - time.monotonic(), 0))
            under_way.create_task(_inject(scene, fault))


async def _inject(scene: DeliveryScene, planned: PlannedFault) -> None:
    processes, everybody = scene.processes, WORKERS * CONCURRENCY
    match planned.fault:
        case ChaosFault.KILL_WORKER:
            _send(processes.worker(planned.target), signal.SIGKILL)
            scene.allowed_unknown += CONCURRENCY
        case ChaosFault.FREEZE_WORKER:
            worker = processes.worker(planned.target)
            _send(worker, signal.SIGSTOP)
            await asyncio.sleep(LEASE_S * (1.5 + planned.last_s))
            _send(worker, signal.SIGCONT)
            scene.allowed_unknown += CONCURRENCY
        case ChaosFault.KILL_RECORDER:
            _send(processes.recorder(), signal.SIGKILL)
        case ChaosFault.RESTART_PROVIDER:
            async with scene.locks["other"]:
                await scene.provider.restart(planned.last_s)
            # Messages with a final dot and without a reply.
            scene.allowed_unknown += everybody
        case ChaosFault.LOCK_DATABASE:
            async with scene.locks["other"]:
                await asyncio.to_thread(_lock_database, scene.site, 3 * planned.last_s)
        case _:
            async with scene.locks["server"]:
                await _inject_server_fault(scene, planned)
    scene.faults[planned.fault] += 1


async def _inject_server_fault(scene: DeliveryScene, planned: PlannedFault) -> None:
    server = scene.server
    match planned.fault:
        case ChaosFault.KILL_CLIENTS:
            await tell(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        case ChaosFault.FLUSH_SCRIPTS:
            await tell(server, "SCRIPT", "FLUSH")
        case ChaosFault.FREEZE_SERVER:
            server.freeze()
            await asyncio.sleep(planned.last_s * 2 * LEASE_S)
            server.thaw()
            scene.allowed_unknown += WORKERS * CONCURRENCY
        case ChaosFault.KILL_SERVER:
            scene.allowed_unknown += await _unrecorded(scene)
            server.kill_hard()
            await asyncio.sleep(planned.last_s)
            await asyncio.to_thread(server.start)
        case ChaosFault.CUT_POWER:
            scene.allowed_unknown += await _unrecorded(scene)
            server.cut_power()
            await asyncio.sleep(planned.last_s)
            await asyncio.to_thread(server.start)
            await _rebuild(scene)
        case ChaosFault.EMPTY_SERVER:
            scene.allowed_unknown += await _unrecorded(scene)
            await tell(server, "FLUSHALL")
            await _rebuild(scene)
        case other:
            raise AssertionError(other)


async def _unrecorded(scene: DeliveryScene) -> int:
    """Return touches that a loss of the queue may make unknown: being sent, or with an unrecorded outcome."""
    events = await tell(scene.server, "XLEN", f"pr:{{{SEND_QUEUE}}}:events")
    return WORKERS * CONCURRENCY + (events if isinstance(events, int) else 0)


async def _rebuild(scene: DeliveryScene) -> dict[str, int]:
    rebuilt = await asyncio.to_thread(scene.site.json, "queue", "rebuild")
    assert isinstance(rebuilt, dict)
    return rebuilt


def _send(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(number)


def _lock_database(site: Site, seconds: float) -> None:
    engine = ready_engine(site.settings)
    with write(engine) as connection:
        connection.execute(sa.text("SELECT 1"))
        time.sleep(seconds)
    engine.dispose()


async def _finish(scene: DeliveryScene) -> None:
    """Rebuild as the guide says: now, and again when the surviving workers have reported what they were sending.

    It waits until every touch has ended, or until the timeout.
    """
    await _rebuild(scene)
    with suppress(TimeoutError):
        async with asyncio.timeout(FINISH_S):
            while True:
                moving, waiting = await _unfinished(scene.site)
                if not moving and not waiting:
                    return
                if not moving:
                    await _rebuild(scene)
                await asyncio.sleep(0.5)


async def _unfinished(site: Site) -> tuple[int, int]:
    """Return the jobs and events that the queue still has, and the touches that have not ended."""
    while True:
        with suppress(UnavailableError):
            async with site.context() as context:
                stats = await (await context.queue(SEND_QUEUE)).stats()
                current = await asyncio.to_thread(summary, context.engine, "trial")
            moving = stats.queued + stats.scheduled + stats.in_flight + sum(g.pending + g.unread for g in stats.groups)
            return moving, sum(n for state, n in current.counts.items() if not state.ended)
        await asyncio.sleep(0.5)


async def _compare(setting: Setting, scene: DeliveryScene) -> Result:
    site = scene.site
    states = {address: TouchState(state) for address, state in site.states().items()}
    taken = Counter(message.recipient for message in site.sandbox.accepted())
    may_have = (TouchState.ACCEPTED, TouchState.UNKNOWN)
    contradicted = [
        address
        for address, state in states.items()
        if (state is TouchState.ACCEPTED and not taken[address]) or (taken[address] and state not in may_have)
    ]
    async with site.context() as context:
        audit = await (await context.queue(SEND_QUEUE)).audit()
    return Result(
        server=await version_of(scene.server),
        audience=setting.audience,
        faults=scene.faults,
        counts=dict(Counter(states.values())),
        taken=sum(taken.values()),
        twice=[address for address, times in taken.items() if times > 1],
        contradicted=contradicted,
        allowed_unknown=scene.allowed_unknown,
        why_unknown=await asyncio.to_thread(_why_unknown, site),
        audit=audit,
        seconds=0.0,
    )


def _why_unknown(site: Site) -> dict[str, int]:
    engine = ready_engine(site.settings)
    with read(engine) as connection:
        rows = connection.execute(
            sa.text("SELECT reply, count(*) FROM touch WHERE state = 'unknown' GROUP BY reply ORDER BY 2 DESC")
        ).all()
    engine.dispose()
    return {str(reply): number for reply, number in rows}
