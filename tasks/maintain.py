"""Steps that look after what runs by itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from postroad.delivery.control import Rebuilt, missing_jobs, rebuild, together
from postroad.delivery.job import MAIL_QUEUES
from postroad.delivery.limits import gates_of, restore_limits
from postroad.delivery.record import Recorder
from postroad.parts import Parts, open_parts
from postroad.queue import Queue
from postroad.settings import DEFAULT_QUEUES
from postroad.warmup.caps import CapKeeper
from postroad.warmup.identity import warming
from tasks.policy import retried
from tasks.report import publish_table


@dataclass(frozen=True)
class Depth:
    """How one queue stands, in jobs; ``unrecorded`` in events, ``oldest_ready_ms`` of the oldest that could go."""

    queue: str
    queued: int
    scheduled: int
    in_flight: int
    uncertain: int
    dead: int
    unrecorded: int
    oldest_ready_ms: int

    @classmethod
    async def of(cls, queue: Queue) -> Depth:
        stats = await queue.stats()
        return cls(
            queue=queue.name,
            queued=stats.queued,
            scheduled=stats.scheduled,
            in_flight=stats.in_flight,
            uncertain=stats.uncertain,
            dead=stats.dead,
            unrecorded=max((group.pending + group.unread for group in stats.groups), default=stats.events),
            oldest_ready_ms=stats.oldest_ready_ms,
        )


@retried("tidy the queues")
async def tidy_queues() -> int:
    """Take back leases that ran out and promote what is due, also where no worker runs. Returns how many jobs."""
    moved = 0
    async with open_parts() as parts:
        for name in DEFAULT_QUEUES:
            queue = await parts.queue(name)
            reaped = await queue.reap()
            moved += reaped.given_back + reaped.uncertain + await queue.promote()
    return moved


@retried("compare queue and ledger")
async def mend_queue() -> Rebuilt | None:
    """Make jobs again for touches that the queue lost, and limits that it lost. None: nothing was missing."""
    async with open_parts() as parts:
        found = [rebuilt for name in MAIL_QUEUES if (rebuilt := await _mend(parts, await parts.queue(name)))]
    return together(found) if found else None


async def _mend(parts: Parts, queue: Queue) -> Rebuilt | None:
    await restore_limits(queue, gates_of(parts.settings, parts.settings.queue(queue.name)))
    await CapKeeper(parts.settings, engine=parts.engine, queue=queue, clock=parts.clock).turn()
    if not await missing_jobs(parts.engine, queue):
        return None
    recorder = Recorder(
        engine=parts.engine, queue=queue, clock=parts.clock, name="maintenance", bounce=parts.settings.bounce
    )
    return await rebuild(
        parts.engine,
        queue,
        recorder,
        expire_ms=parts.settings.delivery.expire_ms,
        now=parts.clock.now(),
        warming=warming(parts.settings),
        shaping=parts.shaping,
    )


@retried("show depths")
async def publish_depths() -> list[Depth]:
    async with open_parts() as parts:
        depths = [await Depth.of(await parts.queue(name)) for name in DEFAULT_QUEUES]
    await publish_table("queues", [asdict(depth) for depth in depths], "How the queues stand.")
    return depths
