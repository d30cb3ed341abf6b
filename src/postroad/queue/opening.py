"""Opening a queue that lies in one piece or in shards, and refusing to look for its jobs where they are not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from random import Random

from postroad.clock import Clock
from postroad.errors import ConfigError, StateError
from postroad.queue.connections import Metrics
from postroad.queue.keep import Keep
from postroad.queue.layout import laid_out, lay_out
from postroad.queue.queue import DEFAULT_KEEP, DEFAULT_RETRY, Queue
from postroad.queue.shards import ShardedQueue
from postroad.queue.shares import GateKey, all_divided, whole_stats
from postroad.queue.verdicts import RetryPolicy

MAX_SHARDS = 256


@asynccontextmanager
async def open_queue(
    url: str,
    name: str,
    *,
    shards: int = 1,
    key_of: GateKey = all_divided,
    retry: RetryPolicy = DEFAULT_RETRY,
    clock: Clock | None = None,
    rng: Random | None = None,
    ephemeral: bool = False,
    keep: Keep = DEFAULT_KEEP,
    metrics: Metrics | None = None,
    sync_replicas: int = 0,
) -> AsyncIterator[Queue]:
    """Open a queue that lies in so many shards; with one it is what `Queue.open` opens, whose options these are.

    ``key_of``: lanes and gates of the same key are in one shard, where the gates are exact. Any other gate is divided:
    each shard has its share, which it cannot lend. `StateError`: the queue lies in another number of shards and is not
    empty. ``keep`` holds for each shard.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise ConfigError(f"{shards} is no number of shards.", remedy=f"There are 1 to {MAX_SHARDS}.")

    def one(of: str) -> AbstractAsyncContextManager[Queue]:
        return Queue.open(
            url,
            of,
            retry=retry,
            clock=clock,
            rng=rng,
            ephemeral=ephemeral,
            keep=keep,
            metrics=metrics,
            sync_replicas=sync_replicas,
        )

    found = await laid_out(url, name)
    if found != shards:
        async with AsyncExitStack() as stack:
            old = [await stack.enter_async_context(one(of)) for of in _names(name, found)]
            await _require_empty(name, old, shards)
        await lay_out(url, name, shards)
    async with AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(one(of)) for of in _names(name, shards)]
        if shards == 1:
            yield queues[0]
            return
        queue = ShardedQueue(name, queues, key_of, metrics)
        try:
            yield queue
        finally:
            await queue.stop_reading()


def _names(name: str, shards: int) -> list[str]:
    return [name] if shards == 1 else [f"{name}:{shard}" for shard in range(shards)]


async def _require_empty(name: str, old: Sequence[Queue], shards: int) -> None:
    stats = whole_stats([await queue.stats() for queue in old])
    jobs = stats.queued + stats.scheduled + stats.in_flight + stats.uncertain + stats.dead
    unread = sum(group.pending + group.unread for group in stats.groups)
    if jobs or stats.remembered or unread:
        raise StateError(
            f"Queue {name} lies in {_count(len(old))} and not in {shards}, and is not empty: {jobs} jobs, "
            f"{stats.remembered} ids that are remembered, {unread} events that are not recorded.",
            remedy=f"Set shards = {len(old)} until nothing is left and every worker has ended; then change it.",
        )


def _count(shards: int) -> str:
    return "1 shard" if shards == 1 else f"{shards} shards"
