"""A queue in shards: each has a slot of its own in a cluster, and together they are used like one queue.

A shard is a queue `NAME:0`, `NAME:1`, … A token that leaves here is the shard's own times the number of shards, plus
the shard: whoever shows a token has said which shard it is of, and no two shards give the same one.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar
from uuid import uuid4

import msgspec

from postroad.queue.connections import Metrics
from postroad.queue.events import DEAD_CONSUMER_MS, Event
from postroad.queue.find import FoundJob
from postroad.queue.gates import Gate, GateState, Rate
from postroad.queue.jobs import Batch, Claimed, Enqueued, Job, JobState, Lane, Reaped, Settled
from postroad.queue.processes import Beat, Process
from postroad.queue.queue import Queue
from postroad.queue.shares import (
    GateKey,
    divide,
    shard_of_key,
    shard_of_lane,
    wants,
    whole_batch,
    whole_gates,
    whole_stats,
)
from postroad.queue.standing import DeadLetter, QueueStats, UncertainJob
from postroad.queue.verdicts import Dead, Done, Release, Verdict

T = TypeVar("T")
Tokened = TypeVar("Tokened", Claimed, Event, UncertainJob, DeadLetter)


class ShardedQueue(Queue):
    """Made by `open_queue`; used like a `Queue`, whose methods say what these do.

    Each id lives in the shard of its lane, and is known there alone: enqueued through a lane of another shard it is
    another job. What speaks of ids asks all shards. An error of one shard is the call's, after all others have done
    their part, and the call may be repeated as `Queue` says.
    """

    def __init__(self, name: str, shards: Sequence[Queue], key_of: GateKey, metrics: Metrics | None) -> None:
        # None of what one queue has is there: every method is one of its own.
        self.name = name
        self.metrics = metrics
        self._shards = shards
        self._key_of = key_of
        self._reading: dict[tuple[str, str, int], asyncio.Task[list[Event]]] = {}

    # -- tokens

    def _inward(self, token: int) -> tuple[int, int]:
        """Shard and its own token."""
        return token % len(self._shards), token // len(self._shards)

    def _outward(self, shard: int, job: Tokened) -> Tokened:
        token = job.token * len(self._shards) + shard
        if isinstance(job, Claimed):
            closed = tuple(of * len(self._shards) + shard for of in job.closed)
            return msgspec.structs.replace(job, token=token, closed=closed)
        return msgspec.structs.replace(job, token=token)

    def _batch(self, shard: int, batch: Batch) -> Batch:
        return msgspec.structs.replace(batch, jobs=[self._outward(shard, job) for job in batch.jobs])

    def _by_shard(self, jobs: Sequence[Claimed]) -> dict[int, list[tuple[int, Claimed]]]:
        """By shard: where in the sequence a job stands, and as its shard knows it."""
        parted: dict[int, list[tuple[int, Claimed]]] = defaultdict(list)
        for place, job in enumerate(jobs):
            shard, token = self._inward(job.token)
            parted[shard].append((place, msgspec.structs.replace(job, token=token)))
        return parted

    # -- in

    async def enqueue(self, lane: Lane, jobs: Sequence[Job]) -> Enqueued:
        return await self._shards[shard_of_lane(lane, self._key_of, len(self._shards))].enqueue(lane, jobs)

    async def promote(self, limit: int = 1000) -> int:
        return sum(await self._all(lambda queue: queue.promote(limit)))

    async def reschedule(self, ids: Sequence[str], due_ms: int) -> list[bool]:
        answers = await self._all(lambda queue: queue.reschedule(ids, due_ms))
        return [any(moved) for moved in zip(*answers, strict=True)]

    async def cancel(self, ids: Sequence[str], cause: str) -> int:
        return sum(await self._all(lambda queue: queue.cancel(ids, cause)))

    # -- out

    async def claim(self, worker: str, *, want: int, lease_ms: int, nonce: str) -> Batch:
        return (await self.settle(worker, [], want=want, lease_ms=lease_ms, nonce=nonce)).batch

    async def mark(self, jobs: Sequence[Claimed]) -> list[bool]:
        return await self._held(jobs, lambda queue, own: queue.mark(own))

    async def extend(self, jobs: Sequence[Claimed], lease_ms: int) -> list[bool]:
        return await self._held(jobs, lambda queue, own: queue.extend(own, lease_ms))

    async def _held(
        self, jobs: Sequence[Claimed], ask: Callable[[Queue, list[Claimed]], Awaitable[list[bool]]]
    ) -> list[bool]:
        parted = self._by_shard(jobs)
        answers = await _together(ask(self._shards[shard], [job for _, job in own]) for shard, own in parted.items())
        held = [False] * len(jobs)
        for own, answer in zip(parted.values(), answers, strict=True):
            for (place, _), ours in zip(own, answer, strict=True):
                held[place] = ours
        return held

    async def settle(
        self,
        worker: str,
        verdicts: Sequence[tuple[Claimed, Verdict]],
        *,
        want: int = 0,
        lease_ms: int = 60_000,
        nonce: str | None = None,
    ) -> Settled:
        """As `Queue.settle`: the first shards to be asked are others each time, and asked for equal parts.

        A shard is asked once at most for each nonce, so that a call that is repeated claims nothing twice.
        """
        nonce = nonce or uuid4().hex
        parted = self._by_shard([job for job, _ in verdicts])
        own = {shard: [(job, verdicts[place][1]) for place, job in jobs] for shard, jobs in parted.items()}
        stale: list[str] = []
        batches: list[Batch] = []
        # The nonce chooses who is first: by chance, and the same again when the call is repeated.
        first = zlib.crc32(nonce.encode()) % len(self._shards)
        waiting = [(first + n) % len(self._shards) for n in range(len(self._shards))]
        while waiting and (want > 0 or own):
            asked = wants(want, waiting)
            now = [shard for shard in waiting if shard in asked or shard in own]
            answers = await _together(
                self._shards[shard].settle(
                    worker, own.get(shard, []), want=asked.get(shard, 0), lease_ms=lease_ms, nonce=nonce
                )
                for shard in now
            )
            for shard, settled in zip(now, answers, strict=True):
                stale += settled.stale
                batches.append(self._batch(shard, settled.batch))
                want -= len(settled.batch.jobs)
                waiting.remove(shard)
            own = {}
        return Settled(stale, whole_batch(batches))

    async def reap(self, limit: int = 1000) -> Reaped:
        reaped = await self._all(lambda queue: queue.reap(limit))
        return Reaped(sum(one.given_back for one in reaped), sum(one.uncertain for one in reaped))

    # -- gates

    async def set_gate(self, gate: Gate, *, owner: str = "") -> None:
        """As `Queue.set_gate`. A gate that has no key is divided, see `shares.divide`."""
        key = self._key_of(gate.name)
        if key is not None:
            await self._home(key).set_gate(gate, owner=owner)
            return
        shares = divide(gate, len(self._shards))
        await _together(queue.set_gate(share, owner=owner) for queue, share in zip(self._shards, shares, strict=True))

    async def set_rate(self, gate: str, rate: Rate) -> None:
        key = self._key_of(gate)
        if key is not None:
            await self._home(key).set_rate(gate, rate)
            return
        shares = divide(Gate(name=gate, rate=rate), len(self._shards))
        await _together(
            queue.set_rate(gate, share.rate)
            for queue, share in zip(self._shards, shares, strict=True)
            if share.rate is not None
        )

    async def gates(self) -> list[GateState]:
        return whole_gates(await self._all(lambda queue: queue.gates()), self._key_of)

    async def suspend(self, gate: str, until_ms: int | None) -> None:
        await _together(queue.suspend(gate, until_ms) for queue in self._of_gate(gate))

    async def suspend_for(self, gate: str, pause_ms: int) -> None:
        await _together(queue.suspend_for(gate, pause_ms) for queue in self._of_gate(gate))

    async def lift(self, gate: str) -> None:
        await _together(queue.lift(gate) for queue in self._of_gate(gate))

    def _of_gate(self, gate: str) -> Sequence[Queue]:
        key = self._key_of(gate)
        return self._shards if key is None else [self._home(key)]

    def _home(self, key: str) -> Queue:
        return self._shards[shard_of_key(key, len(self._shards))]

    # -- groups

    async def pause(self, group: str) -> None:
        await self._all(lambda queue: queue.pause(group))

    async def resume(self, group: str) -> bool:
        return any(await self._all(lambda queue: queue.resume(group)))

    async def cancel_group(self, group: str, cause: str) -> int:
        return sum(await self._all(lambda queue: queue.cancel_group(group, cause)))

    # -- events

    async def append_late(self, id: str, token: int, note: bytes) -> None:  # noqa: A002 - the field's word
        shard, own = self._inward(token)
        await self._shards[shard].append_late(id, own, note)

    async def read_events(
        self, group: str, consumer: str, *, count: int, block_ms: int, idle_ms: int = DEAD_CONSUMER_MS
    ) -> list[Event]:
        """As `Queue.read_events`; up to ``count`` of each shard."""
        reading: dict[asyncio.Task[list[Event]], tuple[str, str, int]] = {}
        for shard, queue in enumerate(self._shards):
            key = (group, consumer, shard)
            # A read that still waits is not given up: what it was sent while it ended would be nobody's for a minute.
            if key not in self._reading:
                read = queue.read_events(group, consumer, count=count, block_ms=block_ms, idle_ms=idle_ms)
                self._reading[key] = asyncio.create_task(read)
            reading[self._reading[key]] = key
        ended: set[asyncio.Task[list[Event]]] = set()
        events: list[Event] = []
        left_s = None if block_ms == 0 else block_ms / 1000
        while not events and len(ended) < len(reading):
            done, _ = await asyncio.wait(reading.keys() - ended, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            ended |= done
            for task in done:
                key = reading[task]
                del self._reading[key]
                events += [self._outward(key[2], event) for event in task.result()]
        return sorted(events, key=lambda event: event.at_ms)

    async def stop_reading(self) -> None:
        """Give up the reads that still wait."""
        for task in self._reading.values():
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)
        self._reading.clear()

    async def acknowledge(self, group: str, events: Sequence[Event], *, forget: Sequence[str] = ()) -> None:
        parted: dict[int, list[Event]] = defaultdict(list)
        for event in events:
            parted[self._inward(event.token)[0]].append(event)
        if forget:
            await _together(
                queue.acknowledge(group, parted[shard], forget=forget) for shard, queue in enumerate(self._shards)
            )
        else:
            await _together(self._shards[shard].acknowledge(group, own) for shard, own in parted.items())

    # -- standing

    async def stats(self) -> QueueStats:
        return whole_stats(await self._all(lambda queue: queue.stats()))

    async def probe(self) -> QueueStats:
        return whole_stats(await self._all(lambda queue: queue.probe()))

    async def beat(self, beat: Beat) -> None:
        """As `Queue.beat`, in the first shard."""
        await self._shards[0].beat(beat)

    async def leave(self, id: str) -> None:  # noqa: A002 - the field's word
        await self._shards[0].leave(id)

    async def processes(self) -> list[Process]:
        return [msgspec.structs.replace(found, queue=self.name) for found in await self._shards[0].processes()]

    async def reconnect(self) -> None:
        await self._all(lambda queue: queue.reconnect())

    def is_full(self, stats: QueueStats) -> bool:
        """Whether one shard at least may be: these are the events of all."""
        return self._shards[0].is_full(stats)

    async def audit(self) -> list[str]:
        found = await self._all(lambda queue: queue.audit())
        return [f"shard {shard}: {wrong}" for shard, wrongs in enumerate(found) for wrong in wrongs]

    async def known(self, ids: Sequence[str]) -> list[JobState | None]:
        """As `Queue.known`; of an id that is in two shards, one that is not over."""
        return [_liveliest(states) for states in zip(*await self._states(ids), strict=True)]

    async def _states(self, ids: Sequence[str]) -> list[list[JobState | None]]:
        return await self._all(lambda queue: queue.known(ids))

    async def _shard_of(self, id: str, wanted: JobState | None = None) -> int:  # noqa: A002 - the field's word
        """Where an id is, or would be found unknown as well as anywhere."""
        states = [states[0] for states in await self._states([id])]
        return states.index(wanted if wanted and wanted in states else _liveliest(states))

    async def find(self, id: str) -> FoundJob:  # noqa: A002 - the field's word
        shard = await self._shard_of(id)
        found = await self._shards[shard].find(id)
        if found.state is None and not found.history:
            # Forgotten, but perhaps not by every history.
            for at, other in enumerate(await self._all(lambda queue: queue.find(id))):
                if other.history:
                    shard, found = at, other
        return msgspec.structs.replace(found, history=[self._outward(shard, event) for event in found.history])

    async def dead_letters(self, *, count: int, cursor: int = 0) -> tuple[list[DeadLetter], int | None]:
        # A cursor is as many places as there are shards, 32 bits each: how many letters of it were shown.
        shown = [cursor >> 32 * shard & 0xFFFF_FFFF for shard in range(len(self._shards))]
        pages = await _together(
            queue.dead_letters(count=count, cursor=at) for queue, at in zip(self._shards, shown, strict=True)
        )
        merged = [(letter, shard) for shard, (letters, _) in enumerate(pages) for letter in letters]
        merged.sort(key=lambda found: found[0].at_ms, reverse=True)
        for _, shard in merged[:count]:
            shown[shard] += 1
        following = sum(at << 32 * shard for shard, at in enumerate(shown))
        letters = [self._outward(shard, letter) for letter, shard in merged[:count]]
        return letters, following if len(letters) == count else None

    async def replay(self, ids: Sequence[str] | None = None, *, cause: str | None = None) -> int:
        return sum(await self._all(lambda queue: queue.replay(ids, cause=cause)))

    async def drop(self, ids: Sequence[str] | None = None, *, cause: str | None = None) -> int:
        return sum(await self._all(lambda queue: queue.drop(ids, cause=cause)))

    async def uncertain(self, limit: int = 1000) -> list[UncertainJob]:
        held = [
            self._outward(shard, job)
            for shard, jobs in enumerate(await self._all(lambda queue: queue.uncertain(limit)))
            for job in jobs
        ]
        return sorted(held, key=lambda job: job.since_ms)[:limit]

    async def resolve(self, id: str, verdict: Done | Release | Dead) -> None:  # noqa: A002 - the field's word
        await self._shards[await self._shard_of(id, JobState.UNCERTAIN)].resolve(id, verdict)

    async def _all(self, ask: Callable[[Queue], Awaitable[T]]) -> list[T]:
        return await _together(ask(queue) for queue in self._shards)


def _liveliest(states: Sequence[JobState | None]) -> JobState | None:
    known = [state for state in states if state is not None]
    return next((state for state in known if state is not JobState.REMEMBERED), known[0] if known else None)


async def _together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """All answers, or the first error once every call has ended."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    found: list[T] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)
    return found
