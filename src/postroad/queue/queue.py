"""The queue: at-least-once, limited by key before the claim, every change one atomic script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from uuid import uuid4

import msgspec
from msgspec import Struct

from postroad.clock import Clock
from postroad.errors import ConfigError, StateError
from postroad.queue.events import DEAD_CONSUMER_MS, Event, EventLog
from postroad.queue.explain import Explanation, explain
from postroad.queue.find import FoundJob, read_found
from postroad.queue.gates import FOREVER_MS, Gate, GateState, limits_of, read_states
from postroad.queue.jobs import Batch, Claimed, Enqueued, Job, JobState, Lane, Reaped, Settled
from postroad.queue.scripts import Scripts
from postroad.queue.server import connect, require_persistence
from postroad.queue.standing import (
    DeadLetter,
    QueueStats,
    UncertainJob,
    read_letters,
    read_stats,
    read_uncertain,
)
from postroad.queue.verdicts import Dead, Done, Release, RetryPolicy, Verdict, order

MAX_JOBS = 1000
MAX_BYTES = 4_000_000
"""Jobs and bytes per script: what blocks the server for some milliseconds, not for seconds."""

DEFAULT_RETRY = RetryPolicy()


class Keep(Struct, frozen=True, kw_only=True):
    """What a queue keeps of jobs that ended: the last ``done``, and the last ``failed`` (died or expired).

    ``remember_ms``: how long an ended id stays known if nobody acknowledges its outcome. Dead letters are
    no history: they stay until they are replayed or dropped. ``events``: when so many wait for a group to
    acknowledge them, nothing is claimed until fewer do, for no event is dropped unread; without any group the
    newest of them are kept. ``consumer_ms``: a consumer of events that owes nothing and was not seen for so
    long is forgotten. Give all workers of one queue the same.
    """

    done: int = 1000
    failed: int = 5000
    remember_ms: int = 7 * 24 * 3600 * 1000
    events: int = 1_000_000
    consumer_ms: int = 3_600_000

    def __post_init__(self) -> None:
        if min(self.done, self.failed, self.remember_ms, self.consumer_ms) < 0 or self.events < 100:
            raise ValueError(f"{self} keeps nothing, or less: events start at 100, the others at 0")

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """As the scripts take them."""
        return self.remember_ms, self.done, self.failed, self.events


DEFAULT_KEEP = Keep()

_pack = msgspec.msgpack.encode


class _Row(Struct, frozen=True, array_like=True):
    id: str
    token: int
    attempt: int
    claim: int
    expires_ms: int
    lane: str


class _Reply(Struct, frozen=True, array_like=True):
    stale: list[str]
    next_ms: int
    rows: list[_Row]
    events_full: bool


_decode_reply = msgspec.msgpack.Decoder(_Reply).decode


def _settled(reply: list[bytes]) -> Settled:
    head = _decode_reply(reply[0])
    jobs = [
        Claimed(row.id, row.token, row.attempt, row.claim, payload, row.expires_ms, row.lane)
        for row, payload in zip(head.rows, reply[1:], strict=True)
    ]
    return Settled(head.stale, Batch(jobs, head.next_ms or None, head.events_full))


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    chunk: list[Job] = []
    size_bytes = 0
    for job in jobs:
        if chunk and (len(chunk) == MAX_JOBS or size_bytes + len(job.payload) > MAX_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(job)
        size_bytes += len(job.payload)
    if chunk:
        yield chunk


class Queue:
    """One named queue, made by `Queue.open`. Every method raises `UnavailableError` when the server is away.

    A call whose reply was lost may be repeated: with the same nonce where it takes one, else as it is.
    """

    def __init__(self, name: str, scripts: Scripts, log: EventLog, retry: RetryPolicy, rng: Random, keep: Keep) -> None:
        self.name = name
        self._scripts = scripts
        self._log = log
        self._retry = retry
        self._rng = rng
        self._keep = keep

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        name: str,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        clock: Clock | None = None,
        rng: Random | None = None,
        ephemeral: bool = False,
        keep: Keep = DEFAULT_KEEP,
    ) -> AsyncIterator[Queue]:
        """Open the queue; it begins to exist with its first job.

        ``clock`` None: the server's TIME, the one clock that all workers share. `StateError`: the server may lose
        jobs (it evicts, or keeps no append-only file) and ``ephemeral`` does not allow that.
        """
        if not name or "}" in name:
            raise ConfigError(f"{name!r} cannot be a queue's name.", remedy="It may not be empty or contain a brace.")
        base = f"pr:{{{name}}}"
        client, blocking = connect(url), connect(url, reply_s=None)
        try:
            await require_persistence(client, ephemeral=ephemeral)
            log = EventLog(blocking, f"{base}:events")
            yield cls(name, Scripts(client, base, clock), log, retry, rng or Random(), keep)  # noqa: S311
        finally:
            await client.aclose()
            await blocking.aclose()

    # -- in

    async def enqueue(self, lane: Lane, jobs: Sequence[Job]) -> Enqueued:
        """Put any number of jobs into a lane. An id that lives or is remembered is left as it is."""
        definition = _pack([lane.name, lane.job_class, lane.weight, lane.gates, lane.group])
        accepted = 0
        for chunk in _chunks(jobs):
            times = _pack([(job.due_ms, job.expires_ms) for job in chunk])
            flat: list[str | bytes] = []
            for job in chunk:
                flat += (job.id, job.payload)
            accepted += await self._scripts.enqueue(definition, times, *flat)
        return Enqueued(accepted, len(jobs) - accepted)

    async def promote(self, limit: int = 1000) -> int:
        """Move due jobs into their lanes; `claim` does it as well. Returns how many."""
        return await self._scripts.promote(limit, self._keep.remember_ms)

    async def reschedule(self, ids: Sequence[str], due_ms: int) -> list[bool]:
        """Let scheduled jobs be due at another instant; one that has passed: now. False: it is not scheduled."""
        moved: list[bool] = []
        for start in range(0, len(ids), MAX_JOBS):
            chunk = await self._scripts.reschedule(due_ms, *ids[start : start + MAX_JOBS])
            moved += [was_scheduled == 1 for was_scheduled in chunk]
        return moved

    async def cancel(self, ids: Sequence[str], cause: str) -> int:
        """End jobs that are queued or scheduled. Others stay. Returns how many."""
        cancelled = 0
        for start in range(0, len(ids), MAX_JOBS):
            cancelled += await self._scripts.cancel(cause, *ids[start : start + MAX_JOBS])
        return cancelled

    # -- out

    async def claim(self, worker: str, *, want: int, lease_ms: int, nonce: str) -> Batch:
        """Lease up to ``want`` jobs (1 to 1000) that every gate of their lanes admits now.

        The same nonce again returns the same batch, less what has been settled since. A worker name has one
        claim or settle under way at a time: the queue remembers only its last nonce, for ``lease_ms``.
        """
        want = min(want, MAX_JOBS)
        reply = await self._scripts.claim(worker, nonce, want, lease_ms, *self._keep.bounds)
        return _settled(reply).batch

    async def mark(self, jobs: Sequence[Claimed]) -> list[bool]:
        """Mark jobs just before their irreversible act. False: the lease is no longer ours, do not act."""
        return [held == 1 for held in await self._scripts.mark(_leases(jobs))]

    async def settle(
        self,
        worker: str,
        verdicts: Sequence[tuple[Claimed, Verdict]],
        *,
        want: int = 0,
        lease_ms: int = 60_000,
        nonce: str | None = None,
    ) -> Settled:
        """Settle jobs, append their events and claim the next batch, in one round trip.

        A job that became uncertain is settled by its own token as well. The same nonce again changes
        nothing and returns the same reply.
        """
        orders = _pack([order(job, verdict, self._retry, self._rng) for job, verdict in verdicts])
        notes = [verdict.note for _, verdict in verdicts]
        nonce, want = nonce or uuid4().hex, min(want, MAX_JOBS)
        reply = await self._scripts.settle(worker, nonce, want, lease_ms, *self._keep.bounds, orders, *notes)
        return _settled(reply)

    async def extend(self, jobs: Sequence[Claimed], lease_ms: int) -> list[bool]:
        """Let leases end ``lease_ms`` from now. False: the lease is no longer ours."""
        return [held == 1 for held in await self._scripts.extend(_leases(jobs), lease_ms)]

    async def reap(self, limit: int = 1000) -> Reaped:
        """Give back or hold the jobs whose leases ran out; `claim` does it as well, 100 at a time."""
        return Reaped(*await self._scripts.reap(limit))

    # -- gates

    async def set_gate(self, gate: Gate) -> None:
        """Set a gate's limits; those absent are lifted. A pause stays unless the gate names another."""
        await self._scripts.set_gate(gate.name, limits_of(gate))

    async def gates(self) -> list[GateState]:
        """Every gate that was ever set or named by a lane, by name."""
        return read_states(await self._scripts.gates())

    async def suspend(self, gate: str, until_ms: int | None) -> None:
        """Pause a gate until an instant, or (None) until `lift`. Jobs in flight are not touched."""
        await self._scripts.suspend(gate, FOREVER_MS if until_ms is None else max(until_ms, 1))

    async def lift(self, gate: str) -> None:
        """End the pause of a gate."""
        await self._scripts.suspend(gate, 0)

    # -- groups

    async def pause(self, group: str) -> None:
        """Hold back every lane of a group, now and later ones, until `resume`: the next claim gets none of them.

        Jobs in flight are not touched. It costs as much as the group has lanes, however many jobs wait in them.
        """
        await self._scripts.pause(_named(group))

    async def resume(self, group: str) -> bool:
        """Let a paused group go on. False: it was not paused."""
        return await self._scripts.resume(_named(group)) == 1

    async def cancel_group(self, group: str, cause: str) -> int:
        """End every job of a group that is queued or scheduled; return how many ended. A pause of it ends as well.

        The first step costs as much as the group has lanes, and from then on no claim gets any of their jobs. The
        rest ends in steps of at most a thousand; if the caller dies, claims go on with it. What is in flight,
        uncertain or dead stays so, and ends if it comes back. Jobs enqueued later are not touched.
        """
        await self._scripts.cancel_group(_named(group), cause)
        cancelled, stay, looked = 0, 0, MAX_JOBS
        while looked == MAX_JOBS:
            looked, scheduled, gone, ended = await self._scripts.drain(MAX_JOBS, stay)
            stay += scheduled - gone
            cancelled += ended
        return cancelled

    # -- events

    async def append_late(self, id: str, token: int, note: bytes) -> None:  # noqa: A002 - the field's word
        """Append an outcome that settled stale, as an event of kind LATE."""
        await self._scripts.report_late(id, token, note)

    async def read_events(
        self, group: str, consumer: str, *, count: int, block_ms: int, idle_ms: int = DEAD_CONSUMER_MS
    ) -> list[Event]:
        """Read the next events of a group, waiting up to ``block_ms`` (0: not at all; at most 30 s).

        A new group begins at the start of the stream. First comes what this consumer had read and not
        acknowledged in an earlier life; then what any consumer has left unacknowledged for ``idle_ms``.
        """
        return await self._log.read(group, consumer, count=count, block_ms=block_ms, idle_ms=idle_ms)

    async def acknowledge(self, group: str, events: Sequence[Event], *, forget: Sequence[str] = ()) -> None:
        """Say that these events are recorded, and that these ids need no memory of their own any more."""
        entries = _pack([event.entry for event in events])
        await self._scripts.acknowledge(group, entries, _pack(forget), self._keep.consumer_ms)

    # -- standing

    async def stats(self) -> QueueStats:
        return read_stats(await self._scripts.stats())

    async def audit(self) -> list[str]:
        """Return the invariants that do not hold, in words. Reads everything: for tests and for doubts."""
        return [wrong.decode() for wrong in await self._scripts.audit()]

    async def known(self, ids: Sequence[str]) -> list[JobState | None]:
        """State of each id; None for one that the queue does not know."""
        return [JobState(state.decode()) if state else None for state in await self._scripts.known(_pack(ids))]

    async def find(self, id: str) -> FoundJob:  # noqa: A002 - the field's word
        """All that the queue knows of one id, its history included as far as that is kept."""
        return read_found(id, await self._scripts.find(id))

    async def explain(self, id: str) -> Explanation:  # noqa: A002 - the field's word
        """Why this job is where it is, and when it may go."""
        return explain(await self.find(id))

    async def dead_letters(self, *, count: int, cursor: int = 0) -> tuple[list[DeadLetter], int | None]:
        """Return the newest letters first, and the cursor of the next page (None: this was the last)."""
        letters = read_letters(await self._scripts.letters(cursor, count))
        return letters, cursor + count if len(letters) == count else None

    async def replay(self, ids: Sequence[str] | None = None, *, cause: str | None = None) -> int:
        """Put dead letters back into their lanes, attempts afresh. Neither ids nor cause: all of them."""
        return await self._exhume("replay", ids, cause)

    async def drop(self, ids: Sequence[str] | None = None, *, cause: str | None = None) -> int:
        """Drop dead letters; their ids stay remembered. Neither ids nor cause: all of them."""
        return await self._exhume("drop", ids, cause)

    async def _exhume(self, action: str, ids: Sequence[str] | None, cause: str | None) -> int:
        total = 0
        if ids is not None:
            for start in range(0, len(ids), MAX_JOBS):
                chunk = _pack(ids[start : start + MAX_JOBS])
                total += (await self._scripts.exhume(action, cause or "", 0, MAX_JOBS, chunk))[1]
            return total
        stay, looked = 0, MAX_JOBS
        while looked == MAX_JOBS:
            looked, moved = await self._scripts.exhume(action, cause or "", stay, MAX_JOBS, _pack([]))
            stay += looked - moved
            total += moved
        return total

    async def uncertain(self, limit: int = 1000) -> list[UncertainJob]:
        """Jobs that were marked and whose outcome is not known, the oldest first."""
        return read_uncertain(await self._scripts.uncertain(limit, ""))

    async def resolve(self, id: str, verdict: Done | Release | Dead) -> None:  # noqa: A002 - the field's word
        """Say what became of an uncertain job. Release: it did not happen, try it again.

        `StateError`: the job is not uncertain, or no longer.
        """
        found = read_uncertain(await self._scripts.uncertain(1, id))
        if found:
            held = found[0]
            job = Claimed(held.id, held.token, held.attempt, 0, b"", 0, held.lane)
            if not (await self.settle(f"resolve:{id}", [(job, verdict)])).stale:
                return
        raise StateError(f"Job {id} is not uncertain.", remedy="Look again: somebody else may have resolved it.")


def _named(group: str) -> str:
    if not group:
        raise ValueError("lanes without a group are no group; suspend a gate that all of them share")
    return group


def _leases(jobs: Sequence[Claimed]) -> bytes:
    return _pack([(job.id, job.token) for job in jobs])
