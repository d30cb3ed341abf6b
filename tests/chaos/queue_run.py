"""A run of the queue alone: workers act on a sink while all other parts fail."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from postroad.errors import UnavailableError
from postroad.queue import Gate, JobState, Queue, QueueOptions, Rate
from tests.chaos.accounts import Accounts, compare_accounts
from tests.chaos.clients import GATES, EventReader, Submitter
from tests.chaos.fleet import Fleet
from tests.chaos.plan import ChaosFault, PlannedFault, crashes, faults
from tests.chaos.proxy import Proxy
from tests.chaos.server import Fsync, Server, ServerKind, tell, version_of
from tests.chaos.sink import acts
from tests.chaos.steps import Step
from tests.chaos.work import POLICY, Job

QUEUE = "chaos"
LEASE_MS = 1_500
CONCURRENCY = 10
WORKERS = 4
DRAIN_S = 90.0

WEIGHTS = {
    ChaosFault.KILL_WORKER: 2,
    ChaosFault.FREEZE_WORKER: 2,
    ChaosFault.STOP_WORKER: 1,
    ChaosFault.DROP_REPLIES: 3,
    ChaosFault.DELAY_REQUESTS: 3,
    ChaosFault.KILL_CLIENTS: 1,
    ChaosFault.FLUSH_SCRIPTS: 1,
    ChaosFault.FREEZE_SERVER: 1,
    ChaosFault.KILL_SERVER: 2,
    ChaosFault.REWRITE_LOG: 1,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings of a run."""

    seed: int
    seconds: float
    kind: ServerKind = ServerKind.VALKEY
    binary: Path
    fsync: Fsync = Fsync.ALWAYS
    cut_power: bool = False
    every_s: float = 0.5
    jobs_per_s: int = 150
    crashed_at: tuple[Step, ...] = tuple(Step)
    careless: bool = False
    """The workers act before their mark. The run must detect that."""


@dataclass(kw_only=True)
class Result:
    """Faults of a run, and their outcome."""

    server: str
    faults: Counter[str]
    accounts: Accounts
    audit: list[str]
    counters: dict[str, int]
    repeated: int
    unanswered: int
    refused: int
    workers_started: int
    broken: list[int]
    seconds: float
    logs: str = field(default="", repr=False)

    @property
    def ok(self) -> bool:
        return self.accounts.ok and not self.audit and not self.broken


@dataclass(kw_only=True)
class _Scene:
    server: Server
    proxy: Proxy
    fleet: Fleet
    done: Counter[str] = field(default_factory=Counter)
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Faults of the server are injected one at a time."""


async def run(setting: Setting) -> Result:
    """Run a queue with faults, wait until it is idle, and compare the accounts."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        async with _scene(setting, folder) as scene:
            url = f"unix://{folder / 'p.sock'}"
            async with Queue.open(url, QUEUE, options=QueueOptions(retry=POLICY)) as queue:
                await _set_gates(queue)
                submitter = Submitter(queue, Random(setting.seed), per_second=setting.jobs_per_s)
                reader = EventReader(queue)
                stop = asyncio.Event()
                clients = [asyncio.create_task(client.run(stop)) for client in (submitter, reader)]
                await _inject_faults(setting, scene)
                stop.set()
                await asyncio.gather(*clients)
                await scene.fleet.heal()
                await _wait_until_idle(queue, reader)
                result = await _compare(setting, scene, queue, submitter, reader)
        result.logs = _tail(folder / "worker.log")
    result.seconds = time.monotonic() - started_s
    return result


@asynccontextmanager
async def _scene(setting: Setting, folder: Path) -> AsyncIterator[_Scene]:
    job = Job(
        url=f"unix://{folder / 'p.sock'}",
        queue=QUEUE,
        folder=folder,
        concurrency=CONCURRENCY,
        lease_ms=LEASE_MS,
        seed=setting.seed,
        careless=setting.careless,
    )
    async with (
        Server.running(setting.binary, folder, setting.fsync) as server,
        Proxy.open(folder / "p.sock", server.socket) as proxy,
        Fleet.running(job, crashes(Random(setting.seed), setting.crashed_at), WORKERS) as fleet,
    ):
        yield _Scene(server=server, proxy=proxy, fleet=fleet)


async def _set_gates(queue: Queue) -> None:
    narrow, slow, everything = GATES
    await queue.set_gate(Gate(name=narrow, concurrency=5))
    await queue.set_gate(Gate(name=slow, rate=Rate(count=100, per_ms=1_000, burst=10)))
    await queue.set_gate(Gate(name=everything, rate=Rate(count=2_000, per_ms=1_000, burst=100), concurrency=30))


async def _inject_faults(setting: Setting, scene: _Scene) -> None:
    # Power failures alone: under `everysec` jobs near a failure are no evidence.
    weights = WEIGHTS | ({ChaosFault.CUT_POWER: 1, ChaosFault.KILL_SERVER: 0} if setting.cut_power else {})
    planned = faults(Random(setting.seed), weights, seconds=setting.seconds, every_s=setting.every_s)
    begun_s = time.monotonic()
    async with asyncio.TaskGroup() as under_way:
        for fault in planned:
            await asyncio.sleep(max(begun_s + fault.at_s - time.monotonic(), 0))
            under_way.create_task(_inject(scene, fault))
        await asyncio.sleep(max(begun_s + setting.seconds - time.monotonic(), 0))


async def _inject(scene: _Scene, planned: PlannedFault) -> None:
    server, fleet, proxy = scene.server, scene.fleet, scene.proxy
    match planned.fault:
        case ChaosFault.KILL_WORKER:
            fleet.kill(planned.target)
        case ChaosFault.STOP_WORKER:
            fleet.stop(planned.target)
        case ChaosFault.FREEZE_WORKER:
            fleet.freeze(planned.target)
        case ChaosFault.DROP_REPLIES:
            proxy.drop_replies()
        case ChaosFault.DELAY_REQUESTS:
            proxy.delay_requests(planned.last_s)
        case _:
            async with scene.one_at_a_time:
                await _inject_server_fault(server, planned)
    scene.done[planned.fault] += 1


async def _inject_server_fault(server: Server, planned: PlannedFault) -> None:
    match planned.fault:
        case ChaosFault.KILL_CLIENTS:
            await tell(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        case ChaosFault.FLUSH_SCRIPTS:
            await tell(server, "SCRIPT", "FLUSH")
        case ChaosFault.REWRITE_LOG:
            await tell(server, "BGREWRITEAOF")
        case ChaosFault.FREEZE_SERVER:
            server.freeze()
            # At most twice a lease, in which jobs in flight expire.
            await asyncio.sleep(planned.last_s * 2 * LEASE_MS / 1000)
            server.thaw()
        case ChaosFault.KILL_SERVER:
            server.kill_hard()
            await asyncio.sleep(planned.last_s)
            await asyncio.to_thread(server.start)
        case ChaosFault.CUT_POWER:
            server.cut_power()
            await asyncio.sleep(planned.last_s)
            await asyncio.to_thread(server.start)
        case other:
            raise AssertionError(other)


async def _wait_until_idle(queue: Queue, reader: EventReader) -> None:
    """Wait until healthy workers have no job left, or until the timeout."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while True:
                with suppress(UnavailableError):
                    stats = await queue.stats()
                    unread = await reader.read(block_ms=0) + sum(g.pending + g.unread for g in stats.groups)
                    if not (stats.queued or stats.scheduled or stats.in_flight or unread):
                        return
                await asyncio.sleep(0.1)


async def _compare(setting: Setting, scene: _Scene, queue: Queue, submitter: Submitter, reader: EventReader) -> Result:
    ids = list(submitter.accepted_at_ms)
    states: dict[str, JobState | None] = {}
    for start in range(0, len(ids), 1_000):
        chunk = ids[start : start + 1_000]
        states |= zip(chunk, await queue.states(chunk), strict=True)
    accounts = compare_accounts(
        accepted_at_ms=submitter.accepted_at_ms,
        states=states,
        moments=reader.moments,
        acts=acts(scene.server.folder / "sink"),
        unsafe_at_ms=scene.server.killed_at_ms if setting.fsync is Fsync.EVERYSEC else (),
    )
    return Result(
        server=await version_of(scene.server),
        faults=scene.done + scene.fleet.deaths,
        accounts=accounts,
        audit=await queue.audit(),
        counters=(await queue.stats()).counters,
        repeated=submitter.repeated,
        unanswered=submitter.unanswered,
        refused=scene.fleet.refused,
        workers_started=scene.fleet.started,
        broken=scene.fleet.broken,
        seconds=0.0,
    )


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-20_000:] if log.exists() else ""
