"""The queue: at-least-once, limited by key before the claim, every change one atomic script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from uuid import uuid4

import msgspec

from postroad.clock import Clock
from postroad.errors import ConfigError, PostroadError, StateError
from postroad.queue.audit import STEP, audit
from postroad.queue.connections import Connections, Metrics
from postroad.queue.events import DEAD_CONSUMER_MS, Event
from postroad.queue.explain import Explanation, explain
from postroad.queue.find import JobDetails, read_found
from postroad.queue.gates import FOREVER_MS, Gate, GateState, Rate, limits_of, read_states
from postroad.queue.jobs import Batch, ClaimedJob, Enqueued, Job, JobState, Lane, Reaped, SettleResult
from postroad.queue.keep import Retention
from postroad.queue.processes import FORGET_MS, MAX_PROCESSES, Beat, Process, read_processes
from postroad.queue.redis.server import require_persistence, require_unsharded
from postroad.queue.standing import (
    DeadLetter,
    QueueStats,
    UncertainJob,
    read_letters,
    read_stats,
    read_uncertain,
)
from postroad.queue.verdicts import Dead, Done, Release, RetryPolicy, SettleCommand, Verdict, to_command
from postroad.queue.wire import MAX_JOBS, chunks_of, done_of, read_settled

DEFAULT_RETRY = RetryPolicy()
DEFAULT_RETENTION = Retention()

_pack = msgspec.msgpack.encode


class Queue:
    """One named queue, made by `Queue.open`. Every method raises `UnavailableError` when the server is away.

    A call whose reply was lost may be repeated: with the same nonce where it takes one, else as it is.
    """

    def __init__(
        self,
        name: str,
        connections: Connections,
        retry: RetryPolicy,
        rng: Random,
        retention: Retention,
        metrics: Metrics | None,
    ) -> None:
        self.name = name
        self.metrics = metrics
        self._connections = connections
        self._scripts = connections.scripts
        self._log = connections.log
        self._retry = retry
        self._rng = rng
        self._retention = retention

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
        retention: Retention = DEFAULT_RETENTION,
        metrics: Metrics | None = None,
        sync_replicas: int = 0,
    ) -> AsyncIterator[Queue]:
        """Open the queue; it begins to exist with its first job. `postroad.queue.address` says what an address is.

        ``sync_replicas``: how many must have a job before `enqueue` returns, and a mark before `mark` does.
        ``clock`` None: the server's TIME, the one clock that all workers share. `StateError`: the server may lose
        jobs (it evicts, or keeps no append-only file) and ``ephemeral`` does not allow that.
        """
        if not name or "}" in name:
            raise ConfigError(f"{name!r} cannot be a queue's name.", remedy="It may not be empty or contain a brace.")
        ran = partial(metrics.script_ran, name) if metrics else None
        connections = Connections(url, f"pr:{{{name}}}", clock, ran, sync_replicas)
        try:
            await require_persistence(connections.client, ephemeral=ephemeral)
            await require_unsharded(connections.client, name)
            yield cls(name, connections, retry, rng or Random(), retention, metrics)  # noqa: S311
        finally:
            await connections.aclose()

    # -- in

    async def enqueue(self, lane: Lane, jobs: Sequence[Job]) -> Enqueued:
        """Put any number of jobs into a lane. An id that lives or is remembered is left as it is."""
        definition = _pack([lane.name, lane.job_class, lane.weight, lane.gates, lane.group])
        accepted = 0
        for chunk in chunks_of(jobs):
            times = _pack([(job.due_ms, job.expires_ms) for job in chunk])
            flat: list[str | bytes] = []
            for job in chunk:
                flat += (job.id, job.payload)
            accepted += await self._scripts.enqueue(definition, times, *flat)
        return Enqueued(accepted, len(jobs) - accepted)

    async def promote(self, limit: int = 1000) -> int:
        """Move due jobs into their lanes; `claim` does it as well. Returns how many."""
        return await self._scripts.promote(limit, self._retention.remember_ms)

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
        reply = await self._scripts.claim(worker, nonce, want, lease_ms, *self._retention.bounds)
        return read_settled(reply).batch

    async def mark(self, jobs: Sequence[ClaimedJob]) -> list[bool]:
        """Mark jobs just before their irreversible act. False: the lease is no longer ours, do not act."""
        return [held == 1 for held in await self._scripts.mark(_leases(jobs))]

    async def settle(
        self,
        worker: str,
        verdicts: Sequence[tuple[ClaimedJob, Verdict]],
        *,
        want: int = 0,
        lease_ms: int = 60_000,
        nonce: str | None = None,
    ) -> SettleResult:
        """Settle jobs, append their events and claim the next batch, in one round trip.

        A job that became uncertain is settled by its own token as well. The same nonce again changes
        nothing and returns the same reply.
        """
        done, commands, notes, twice = self._partition(verdicts)
        nonce, want = nonce or uuid4().hex, min(want, MAX_JOBS)
        reply = await self._scripts.settle(
            worker, nonce, want, lease_ms, *self._retention.bounds, *done_of(done), _pack(commands), *notes
        )
        settled = read_settled(reply)
        settled.stale.extend(twice)
        return settled

    def _partition(
        self, verdicts: Sequence[tuple[ClaimedJob, Verdict]]
    ) -> tuple[list[tuple[ClaimedJob, Done]], list[SettleCommand], list[bytes], list[str]]:
        """Jobs that ended well, commands for the others and their notes, and ids that came twice: the first counts."""
        done: list[tuple[ClaimedJob, Done]] = []
        commands: list[SettleCommand] = []
        notes: list[bytes] = []
        twice: list[str] = []
        seen: set[str] = set()
        for job, verdict in verdicts:
            if job.id in seen:
                twice.append(job.id)
                continue
            seen.add(job.id)
            if isinstance(verdict, Done):
                done.append((job, verdict))
            else:
                commands.append(to_command(job, verdict, self._retry, self._rng))
                notes.append(verdict.note)
        return done, commands, notes, twice

    async def extend(self, jobs: Sequence[ClaimedJob], lease_ms: int) -> list[bool]:
        """Let leases end ``lease_ms`` from now. False: the lease is no longer ours."""
        return [held == 1 for held in await self._scripts.extend(_leases(jobs), lease_ms)]

    async def reap(self, limit: int = 1000) -> Reaped:
        """Give back or hold the jobs whose leases ran out, see `Reaped`; `claim` does it as well, 100 at a time."""
        return Reaped(*await self._scripts.reap(limit))

    # -- gates

    async def set_gate(self, gate: Gate, *, owner: str = "") -> None:
        """Set a gate's limits; those absent are lifted. A pause stays unless the gate names another.

        ``owner``: what sets them, shown by `gates`, so that it can find and lift the limits that it had set.
        """
        await self._scripts.set_gate(gate.name, limits_of(gate, owner=owner))

    async def set_rate(self, gate: str, rate: Rate) -> None:
        """Set a gate's rate alone: its other limits stay, and what of them is used."""
        await self._scripts.set_gate(gate, limits_of(Gate(name=gate, rate=rate), only=True))

    async def gates(self) -> list[GateState]:
        """Every gate that was ever set or named by a lane, by name."""
        found: dict[str, GateState] = {}  # A scan may return one twice.
        cursor = b"0"
        while True:
            cursor, packed = await self._scripts.gates(cursor, STEP)
            found |= {state.gate.name: state for state in read_states(packed)}
            if cursor == b"0":
                return [found[name] for name in sorted(found)]

    async def pause_gate(self, gate: str, until_ms: int | None) -> None:
        """Pause a gate until an instant, or (None) until `resume_gate`. Jobs in flight are not touched."""
        await self._scripts.suspend(gate, FOREVER_MS if until_ms is None else max(until_ms, 1))

    async def pause_gate_for(self, gate: str, pause_ms: int) -> None:
        """Pause a gate for so long, in ms, by the clock of the server. Jobs in flight are not touched."""
        await self._scripts.suspend(gate, -max(pause_ms, 1))

    async def resume_gate(self, gate: str) -> None:
        """End the pause of a gate."""
        await self._scripts.suspend(gate, 0)

    # -- groups

    async def pause_group(self, group: str) -> None:
        """Hold back every lane of a group, now and later ones, until `resume_group`: the next claim gets none of them.

        Jobs in flight are not touched. It costs as much as the group has lanes, however many jobs wait in them. Many
        lanes are held back in steps: if the caller dies, the rest goes on until a group is paused again.
        """
        after = await self._scripts.pause(_named(group), 0, STEP)
        while after:
            after = await self._scripts.pause(group, after, STEP)

    async def resume_group(self, group: str) -> bool:
        """Let a paused group go on. False: it was not paused.

        Many lanes go on in steps; if the caller dies, claims go on with it.
        """
        more = await self._scripts.resume(_named(group), STEP)
        if more < 0:
            return False
        while more > 0:
            more = await self._scripts.resume(group, STEP)
        return True

    async def cancel_group(self, group: str, cause: str) -> int:
        """End every job of a group that is queued or scheduled; return how many ended. A pause of it ends as well.

        At first its lanes are cancelled, in steps, and from then on no claim gets any of their jobs. The rest ends in
        steps of at most a thousand; if the caller dies, claims go on with it. What is in flight, uncertain or dead
        stays so, and ends if it comes back. Jobs enqueued later are not touched.
        """
        upto = await self._scripts.cancel_group(_named(group), cause, 0, STEP)
        while upto:
            upto = await self._scripts.cancel_group(group, cause, upto, STEP)
        cancelled, stay, looked = 0, 0, MAX_JOBS
        while looked == MAX_JOBS:
            looked, scheduled, gone, ended = await self._scripts.drain(MAX_JOBS, stay)
            stay += scheduled - gone
            cancelled += ended
        return cancelled

    # -- events

    async def record_late_outcome(self, id: str, token: int, note: bytes) -> None:  # noqa: A002 - the field's word
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
        entries = _pack(self._log.acknowledge(group, events))
        try:
            await self._scripts.acknowledge(group, entries, _pack(forget), self._retention.consumer_ms)
        except PostroadError:
            self._log.read_again(group)
            raise

    # -- standing

    async def stats(self) -> QueueStats:
        return read_stats(await self._scripts.stats())

    async def probe(self) -> QueueStats:
        """`stats` by a connection of its own: what the server that the address leads to now has to say."""
        connections = self._connections.anew()
        try:
            return read_stats(await connections.scripts.stats())
        finally:
            await connections.aclose()

    async def beat(self, beat: Beat) -> None:
        """Note that a process is alive. Harmless as often as it is called."""
        await self._scripts.beat(beat.id, _pack(beat), FORGET_MS, MAX_PROCESSES)

    async def leave(self, id: str) -> None:  # noqa: A002 - the field's word
        """Forget a process: it has ended as it was asked to."""
        await self._scripts.beat(id, b"", FORGET_MS, MAX_PROCESSES)

    async def processes(self) -> list[Process]:
        """Return the processes that beat within the last hour, the last one to be alive first."""
        return read_processes(self.name, await self._scripts.processes(MAX_PROCESSES))

    async def reconnect(self) -> None:
        """Drop every connection: what is under way fails as if the server had gone, the next call connects anew."""
        await self._connections.drop()

    def events_backlogged(self, stats: QueueStats) -> bool:
        """Whether so many events wait to be recorded that nothing is claimed."""
        return bool(stats.groups) and stats.events >= self._retention.events

    async def audit(self) -> list[str]:
        """Return the invariants that do not hold, in words.

        It reads every job, in steps that take the server some milliseconds each: see `postroad.queue.audit`.
        """
        return await audit(self._scripts)

    async def states(self, ids: Sequence[str]) -> list[JobState | None]:
        """State of each id; None for one that the queue does not know."""
        return [JobState(state.decode()) if state else None for state in await self._scripts.known(_pack(ids))]

    async def find(self, id: str) -> JobDetails:  # noqa: A002 - the field's word
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
        return await self._process_dead_letters("replay", ids, cause)

    async def drop(self, ids: Sequence[str] | None = None, *, cause: str | None = None) -> int:
        """Drop dead letters; their ids stay remembered. Neither ids nor cause: all of them."""
        return await self._process_dead_letters("drop", ids, cause)

    async def _process_dead_letters(self, action: str, ids: Sequence[str] | None, cause: str | None) -> int:
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
            job = ClaimedJob(held.id, held.token, held.attempt, held.claim, b"", 0, held.lane)
            if not (await self.settle(f"resolve:{id}", [(job, verdict)])).stale:
                return
        raise StateError(f"Job {id} is not uncertain.", remedy="Look again: somebody else may have resolved it.")


def _named(group: str) -> str:
    if not group:
        raise ValueError("lanes without a group are no group; suspend a gate that all of them share")
    return group


def _leases(jobs: Sequence[ClaimedJob]) -> bytes:
    return _pack(([job.id for job in jobs], [job.token for job in jobs]))
