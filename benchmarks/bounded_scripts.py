"""Every script of the queue, called as its callers do on queues of several sizes: no call may grow with them.

`CALLS` is the registry. Its keys are compared with the scripts in the source, so that a new one cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct
from redis.asyncio import Redis

from postroad.queue import Dead, Defer, Done, Gate, Job, Lane, Queue, Rate, Release, Verdict
from postroad.queue.audit import STEP
from postroad.queue.scripts import _sha_of, source_of

BATCH = 1_000
WANT = 100
"""Jobs that a worker claims at once."""

LANES = 300
"""At least so many lanes are ready: more than a claim visits, on a queue of any size."""

LEASE_MS = 600_000
FAR_MS = 4_000_000_000_000

SLOW_US = 100
"""Shorter calls are not logged, and count as 0 ms: a log of every command would push out the long ones."""

SLOW_LOG = 100_000


class ScriptCost(Struct, frozen=True, kw_only=True):
    """Of the calls of one script: how many commands a call did on average, and the longest, ms."""

    commands: float
    longest_ms: float


def scripts() -> set[str]:
    """Return the names of the queue's scripts."""
    folder = files("postroad.queue").joinpath("lua")
    return {path.name.removesuffix(".lua") for path in folder.iterdir() if path.name.endswith(".lua")}


class LargeQueue(Struct, frozen=True):
    """A queue of so many jobs: half in one lane, many lanes with a gate each, a schedule, and dead letters."""

    queue: Queue
    size: int


MAIN = Lane(name="main", gates=("all", "main"))


def _of_group(n: int) -> Lane:
    return Lane(name=f"lane-{n}", gates=("all", f"gate-{n}"), group="large")


async def fill(queue: Queue, size: int) -> LargeQueue:
    """Fill an empty queue."""
    payload = b"0" * 100
    dead = size // 20
    await queue.enqueue(Lane(name="dead", gates=()), [Job(id=f"dead{n}", payload=payload) for n in range(dead)])
    for n in range(0, dead, BATCH):
        batch = await queue.claim("w", want=BATCH, lease_ms=LEASE_MS, nonce=f"dead{n}")
        await queue.settle("w", [(job, Dead(cause="test")) for job in batch.jobs])
    await queue.enqueue(MAIN, [Job(id=f"main{n}", payload=payload) for n in range(size // 2)])
    await queue.enqueue(MAIN, [Job(id=f"later{n}", payload=payload, due_ms=FAR_MS) for n in range(size // 5)])
    for n in range(max(size // 100, LANES)):
        await queue.enqueue(_of_group(n), [Job(id=f"group{n}", payload=payload)])
        await queue.set_gate(Gate(name=f"gate-{n}", rate=Rate(count=1, per_ms=1_000)))
    return LargeQueue(queue, size)


async def _claim(large: LargeQueue) -> None:
    batch = await large.queue.claim("w", want=WANT, lease_ms=LEASE_MS, nonce="claim")
    await large.queue.settle("w", [(job, Release()) for job in batch.jobs])


async def _settle(large: LargeQueue) -> None:
    batch = await large.queue.claim("w", want=WANT, lease_ms=LEASE_MS, nonce="settle")
    verdicts: list[Verdict] = [Done(), Defer(cause="test", at_ms=FAR_MS), Release()]
    await large.queue.settle("w", [(job, verdicts[n % 3]) for n, job in enumerate(batch.jobs)], want=WANT, nonce="next")
    await _give_back(large, "next")


async def _give_back(large: LargeQueue, nonce: str) -> None:
    batch = await large.queue.claim("w", want=WANT, lease_ms=LEASE_MS, nonce=nonce)
    await large.queue.settle("w", [(job, Release()) for job in batch.jobs])


async def _mark_and_hold(large: LargeQueue) -> None:
    """Mark, renew, let the leases run out and hold the jobs."""
    batch = await large.queue.claim("w", want=WANT, lease_ms=LEASE_MS, nonce="mark")
    await large.queue.mark(batch.jobs)
    await large.queue.extend(batch.jobs, 0)
    await large.queue.reap()


async def _audit(large: LargeQueue) -> None:
    assert await large.queue.audit() == []


async def _acknowledge(large: LargeQueue) -> None:
    while events := await large.queue.read_events("recorder", "r", count=BATCH, block_ms=0):
        await large.queue.acknowledge("recorder", events, forget=[event.id for event in events])


async def _pause_and_resume(large: LargeQueue) -> None:
    await large.queue.pause_group("large")
    await large.queue.resume_group("large")


def _ids(prefix: str) -> list[str]:
    return [f"{prefix}{n}" for n in range(BATCH)]


def _many(size: int) -> list[Job]:
    return [Job(id=f"new{n}", payload=b"0" * 100) for n in range(min(size, BATCH))]


Call = Callable[[LargeQueue], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "enqueue": lambda large: large.queue.enqueue(MAIN, _many(large.size)),
    "promote": lambda large: large.queue.promote(),
    "claim": _claim,
    "settle": _settle,
    "mark": _mark_and_hold,
    "extend": _mark_and_hold,
    "reap": _mark_and_hold,
    "uncertain": lambda large: large.queue.uncertain(),
    "update_gate": lambda large: large.queue.update_gate("main", rate=Rate(count=1_000_000, per_ms=1)),
    "pause_gate": lambda large: large.queue.pause_gate("gate-1", FAR_MS),
    "gates": lambda large: large.queue.gates(),
    "stats": lambda large: large.queue.stats(),
    "states": lambda large: large.queue.states(_ids("main")),
    "find": lambda large: large.queue.find(f"main{large.size // 2 - 1}"),
    "dead_letters": lambda large: large.queue.dead_letters(count=100),
    "replay_or_drop": lambda large: large.queue.replay([f"dead{n}" for n in range(50)]),
    "reschedule": lambda large: large.queue.reschedule(_ids("later"), FAR_MS + 1),
    "cancel": lambda large: large.queue.cancel(_ids("later"), "test"),
    "report_late": lambda large: large.queue.record_late_outcome("main1", 1, b""),
    "beat": lambda large: large.queue._scripts.beat("w", msgspec.msgpack.encode({}), LEASE_MS, 100),
    "processes": lambda large: large.queue._scripts.processes(100),
    "audit": _audit,
    "pause_group": _pause_and_resume,
    "resume_group": _pause_and_resume,
    "cancel_group": lambda large: large.queue.cancel_group("large", "test"),
    "cancel_step": lambda large: large.queue.cancel_group("large", "test"),
    "acknowledge": _acknowledge,
}


async def measure(url: str, client: Redis, size: int) -> dict[str, ScriptCost]:
    """Call every script on a queue of a size, one after another. Returns the costs by script."""
    async with Queue.open(url, f"bounded-{size}") as queue:
        large = await fill(queue, size)
        for name in CALLS:  # A script that the server does not know yet is sent twice.
            await client.script_load(source_of(name))
        await client.config_set("slowlog-log-slower-than", SLOW_US)
        await client.config_set("slowlog-max-len", SLOW_LOG)
        found = {}
        for name, call in CALLS.items():
            found[name] = await _cost(client, name, lambda call=call: call(large))  # type: ignore[misc]
        await client.config_set("slowlog-log-slower-than", 10_000)
        return found


async def _cost(client: Redis, name: str, call: Callable[[], Awaitable[Any]]) -> ScriptCost:
    """Cost of what a call runs of the script of this name."""
    sha = _sha_of(name).encode()
    await client.config_resetstat()
    await client.slowlog_reset()
    await call()
    stats = await client.info("commandstats")
    entries = await client.slowlog_get(SLOW_LOG)
    # The log has the commands within scripts as well: only the statistics count every script.
    scripts = sum(int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for command in ("eval", "evalsha"))
    mine = [entry["duration"] for entry in entries if sha in entry["command"]] or [0]
    commands = sum(int(of["calls"]) for of in stats.values()) - scripts
    return ScriptCost(commands=commands / max(scripts, 1), longest_ms=max(mine) / 1000)


STEP_COMMANDS = 8 * STEP
"""Commands that one step of a script with steps may do. On a small queue there is less for it to do."""
