"""A limit divided over shards, and what shards say put together again. Nothing here speaks to a server."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from postroad.errors import ConfigError
from postroad.queue.gates import Gate, GateState, Quota, Rate
from postroad.queue.jobs import Batch, Lane
from postroad.queue.standing import GroupLag, QueueStats

GateKey = Callable[[str], str | None]
"""The key of a gate's name. Gates of one key are in one shard, where they are exact; None: divided over all shards."""


def all_divided(gate: str) -> None:
    """No gate has a shard of its own."""


def shard_of_key(key: str, shards: int) -> int:
    """The same on every machine and in every version: jobs lie where it says."""
    return zlib.crc32(key.encode()) % shards


def shard_of_lane(lane: Lane, key_of: GateKey, shards: int) -> int:
    """The shard of its first gate that has a key; of its name if none has.

    `ConfigError`: it names gates that are exact in different shards, so that one of them would not be.
    """
    keys = {key: gate for gate in lane.gates if (key := key_of(gate)) is not None}
    places = {shard_of_key(key, shards) for key in keys}
    if len(places) > 1:
        raise ConfigError(
            f"Lane {lane.name} names gates that are in different shards: {', '.join(keys.values())}.",
            remedy="Give these gates the same key, or no key to all but one, which divides them over the shards.",
        )
    return places.pop() if places else shard_of_key(lane.name, shards)


def divide(gate: Gate, shards: int) -> list[Gate]:
    """A gate's share for each shard. Their limits sum to the gate's.

    `ConfigError`: a limit is smaller than the number of shards, so that some of them would stand still for good.
    """
    for what, limit in (("a burst", gate.rate.burst if gate.rate else None), ("a concurrency", gate.concurrency)):
        if limit is not None and limit < shards:
            raise ConfigError(
                f"Gate {gate.name} has {what} of {limit}, which cannot be divided over {shards} shards.",
                remedy=f"Give it at least {shards}, or the queue fewer shards.",
            )
    return [
        Gate(
            name=gate.name,
            rate=gate.rate
            and Rate(
                count=gate.rate.count / shards, per_ms=gate.rate.per_ms, burst=_share(gate.rate.burst, shards, shard)
            ),
            concurrency=None if gate.concurrency is None else _share(gate.concurrency, shards, shard),
            quota=gate.quota and Quota(left=_share(gate.quota.left, shards, shard), until_ms=gate.quota.until_ms),
            paused_until_ms=gate.paused_until_ms,
        )
        for shard in range(shards)
    ]


def _share(whole: int, shards: int, shard: int) -> int:
    return whole // shards + (shard < whole % shards)


def whole_gates(by_shard: Sequence[Sequence[GateState]], key_of: GateKey) -> list[GateState]:
    """Each gate as one, by name. A divided limit that one shard has lost is shown as none: it is to be set again."""
    named: dict[str, list[GateState]] = defaultdict(list)
    for states in by_shard:
        for state in states:
            named[state.gate.name].append(state)
    return [_whole(name, named[name], shares=len(by_shard) if key_of(name) is None else 1) for name in sorted(named)]


def _whole(name: str, states: Sequence[GateState], shares: int) -> GateState:
    gates = [state.gate for state in states]
    rates = [gate.rate for gate in gates if gate.rate]
    quotas = [gate.quota for gate in gates if gate.quota]
    limits = [gate.concurrency for gate in gates if gate.concurrency is not None]
    rooms = [state.room for state in states if state.room is not None]
    gate = Gate(
        name=name,
        rate=Rate(
            count=round(sum(rate.count for rate in rates), 9),
            per_ms=rates[0].per_ms,
            burst=sum(rate.burst for rate in rates),
        )
        if len(rates) >= shares
        else None,
        concurrency=sum(limits) if len(limits) >= shares else None,
        quota=Quota(left=sum(quota.left for quota in quotas), until_ms=max(quota.until_ms for quota in quotas))
        if len(quotas) >= shares
        else None,
        paused_until_ms=_most(gate.paused_until_ms for gate in gates),
    )
    used = [state.rate_used * state.gate.rate.burst for state in states if state.gate.rate]
    return GateState(
        gate=gate,
        in_flight=sum(state.in_flight for state in states),
        parked_lanes=sum(state.parked_lanes for state in states),
        room=sum(rooms) if rooms else None,
        wake_ms=_least(state.wake_ms for state in states),
        rested_ms=max((state.rested_ms for state in states if state.rested_ms is not None), default=None),
        rate_used=sum(used) / gate.rate.burst if gate.rate else 0.0,
        paused_since_ms=_least(state.paused_since_ms for state in states),
        owner=states[0].owner,
    )


def whole_stats(by_shard: Sequence[QueueStats]) -> QueueStats:
    """Sums; of ages, the oldest."""
    depth: Counter[str] = Counter()
    counters: Counter[str] = Counter()
    pending: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    for stats in by_shard:
        depth.update(stats.queued_by_class)
        counters.update(stats.counters)
        for group in stats.groups:
            pending[group.name] += group.pending
            unread[group.name] += group.unread
    return QueueStats(
        queued=sum(stats.queued for stats in by_shard),
        scheduled=sum(stats.scheduled for stats in by_shard),
        in_flight=sum(stats.in_flight for stats in by_shard),
        uncertain=sum(stats.uncertain for stats in by_shard),
        dead=sum(stats.dead for stats in by_shard),
        remembered=sum(stats.remembered for stats in by_shard),
        ready_lanes=sum(stats.ready_lanes for stats in by_shard),
        parked_lanes=sum(stats.parked_lanes for stats in by_shard),
        lanes=sum(stats.lanes for stats in by_shard),
        events=sum(stats.events for stats in by_shard),
        queued_by_class=dict(depth),
        counters=dict(counters),
        oldest_ready_ms=max(stats.oldest_ready_ms for stats in by_shard),
        groups=[GroupLag(name, pending[name], unread[name]) for name in pending],
        paused_groups=sorted({group for stats in by_shard for group in stats.paused_groups}),
    )


def whole_batch(batches: Sequence[Batch]) -> Batch:
    """All jobs, and the earliest instant at which asking any of them again is worth it."""
    return Batch(
        [job for batch in batches for job in batch.jobs],
        _least(batch.next_ms for batch in batches),
        any(batch.events_full for batch in batches),
        any(batch.more for batch in batches),
    )


def wants(want: int, shards: Sequence[int]) -> dict[int, int]:
    """How many jobs to ask each of these shards for, so that the first ones get what does not divide."""
    asked = {shard: _share(want, len(shards), place) for place, shard in enumerate(shards)}
    return {shard: n for shard, n in asked.items() if n}


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _most(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
