"""A run at the level of the queue: its workers act on a sink of their own, while everything around them fails."""

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
from tests.chaos.accounts import Accounts, reckon
from tests.chaos.clients import GATES, Submitter, Witness
from tests.chaos.fleet import Fleet
from tests.chaos.plan import Blow, Planned, blows, dooms
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
    Blow.KILL_WORKER: 2,
    Blow.FREEZE_WORKER: 2,
    Blow.STOP_WORKER: 1,
    Blow.DROP_REPLIES: 3,
    Blow.DELAY_REQUESTS: 3,
    Blow.KILL_CLIENTS: 1,
    Blow.FLUSH_SCRIPTS: 1,
    Blow.FREEZE_SERVER: 1,
    Blow.KILL_SERVER: 2,
    Blow.REWRITE_LOG: 1,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run is made of."""

    seed: int
    seconds: float
    kind: ServerKind = ServerKind.VALKEY
    binary: Path
    fsync: Fsync = Fsync.ALWAYS
    cut_power: bool = False
    every_s: float = 0.5
    jobs_per_s: int = 150
    doomed_at: tuple[Step, ...] = tuple(Step)
    careless: bool = False
    """The workers act before they mark: a run that is to find that out."""


@dataclass(kw_only=True)
class Result:
    """What was done, and what became of it."""

    server: str
    blows: Counter[str]
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
    """What is done to the server waits for what is being done to it."""


async def run(setting: Setting) -> Result:
    """Make and break a queue for a while; then let it come to rest, and reckon."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        async with _scene(setting, folder) as scene:
            url = f"unix://{folder / 'p.sock'}"
            async with Queue.open(url, QUEUE, options=QueueOptions(retry=POLICY)) as queue:
                await _set_gates(queue)
                submitter = Submitter(queue, Random(setting.seed), per_second=setting.jobs_per_s)
                witness = Witness(queue)
                stop = asyncio.Event()
                clients = [asyncio.create_task(client.run(stop)) for client in (submitter, witness)]
                await _strike(setting, scene)
                stop.set()
                await asyncio.gather(*clients)
                await scene.fleet.heal()
                await _come_to_rest(queue, witness)
                result = await _reckon(setting, scene, queue, submitter, witness)
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
        Fleet.running(job, dooms(Random(setting.seed), setting.doomed_at), WORKERS) as fleet,
    ):
        yield _Scene(server=server, proxy=proxy, fleet=fleet)


async def _set_gates(queue: Queue) -> None:
    narrow, slow, everything = GATES
    await queue.set_gate(Gate(name=narrow, concurrency=5))
    await queue.set_gate(Gate(name=slow, rate=Rate(count=100, per_ms=1_000, burst=10)))
    await queue.set_gate(Gate(name=everything, rate=Rate(count=2_000, per_ms=1_000, burst=100), concurrency=30))


async def _strike(setting: Setting, scene: _Scene) -> None:
    # The power cuts alone: what lies near a death of the server under `everysec` proves nothing any more.
    weights = WEIGHTS | ({Blow.CUT_POWER: 1, Blow.KILL_SERVER: 0} if setting.cut_power else {})
    planned = blows(Random(setting.seed), weights, seconds=setting.seconds, every_s=setting.every_s)
    begun_s = time.monotonic()
    async with asyncio.TaskGroup() as under_way:
        for blow in planned:
            await asyncio.sleep(max(begun_s + blow.at_s - time.monotonic(), 0))
            under_way.create_task(_deal(scene, blow))
        await asyncio.sleep(max(begun_s + setting.seconds - time.monotonic(), 0))


async def _deal(scene: _Scene, planned: Planned) -> None:
    server, fleet, proxy = scene.server, scene.fleet, scene.proxy
    match planned.blow:
        case Blow.KILL_WORKER:
            fleet.kill(planned.target)
        case Blow.STOP_WORKER:
            fleet.stop(planned.target)
        case Blow.FREEZE_WORKER:
            fleet.freeze(planned.target)
        case Blow.DROP_REPLIES:
            proxy.drop_replies()
        case Blow.DELAY_REQUESTS:
            proxy.delay_requests(planned.last_s)
        case _:
            async with scene.one_at_a_time:
                await _deal_to_server(server, planned)
    scene.done[planned.blow] += 1


async def _deal_to_server(server: Server, planned: Planned) -> None:
    match planned.blow:
        case Blow.KILL_CLIENTS:
            await tell(server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        case Blow.FLUSH_SCRIPTS:
            await tell(server, "SCRIPT", "FLUSH")
        case Blow.REWRITE_LOG:
            await tell(server, "BGREWRITEAOF")
        case Blow.FREEZE_SERVER:
            server.freeze()
            # Up to twice a lease: what was in flight runs out meanwhile.
            await asyncio.sleep(planned.last_s * 2 * LEASE_MS / 1000)
            server.thaw()
        case Blow.KILL_SERVER:
            server.kill_hard()
            await asyncio.sleep(planned.last_s)
            await asyncio.to_thread(server.start)
        case Blow.CUT_POWER:
            server.cut_power()
            await asyncio.sleep(planned.last_s)
            await asyncio.to_thread(server.start)
        case other:
            raise AssertionError(other)


async def _come_to_rest(queue: Queue, witness: Witness) -> None:
    """Until nothing is left that healthy workers would still do; or the time for it is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while True:
                with suppress(UnavailableError):
                    stats = await queue.stats()
                    unread = await witness.read(block_ms=0) + sum(g.pending + g.unread for g in stats.groups)
                    if not (stats.queued or stats.scheduled or stats.in_flight or unread):
                        return
                await asyncio.sleep(0.1)


async def _reckon(setting: Setting, scene: _Scene, queue: Queue, submitter: Submitter, witness: Witness) -> Result:
    ids = list(submitter.accepted_at_ms)
    states: dict[str, JobState | None] = {}
    for start in range(0, len(ids), 1_000):
        chunk = ids[start : start + 1_000]
        states |= zip(chunk, await queue.states(chunk), strict=True)
    accounts = reckon(
        accepted_at_ms=submitter.accepted_at_ms,
        states=states,
        moments=witness.moments,
        acts=acts(scene.server.folder / "sink"),
        unsafe_at_ms=scene.server.killed_at_ms if setting.fsync is Fsync.EVERYSEC else (),
    )
    return Result(
        server=await version_of(scene.server),
        blows=scene.done + scene.fleet.deaths,
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
