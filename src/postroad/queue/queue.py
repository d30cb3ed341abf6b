"""The queue: at-least-once, limited by gates before the claim. Every change is one atomic script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from random import Random
from typing import Unpack
from uuid import uuid4

import msgspec

from postroad.clock import Clock
from postroad.errors import ConfigError, StateError
from postroad.queue.audit import audit
from postroad.queue.codec import MAX_JOBS, SettleCommand, chunks_of, done_of, read_settled, to_command
from postroad.queue.events import EventLog, EventOperations
from postroad.queue.gates import GateOperations
from postroad.queue.inspect import InspectOperations
from postroad.queue.processes import ProcessOperations
from postroad.queue.recovery import RecoveryOperations, read_uncertain
from postroad.queue.redis.server import require_persistence, require_unsharded
from postroad.queue.scripts import ServerConnections
from postroad.queue.stats import StatsOperations
from postroad.queue.types import (
    Batch,
    ClaimedJob,
    Dead,
    Done,
    Enqueued,
    Job,
    Lane,
    Metrics,
    OldQueueKeywords,
    QueueOptions,
    Reaped,
    Release,
    SettleResult,
    Verdict,
    with_old_keywords,
)

DEFAULT_OPTIONS = QueueOptions()

_pack = msgspec.msgpack.encode


class Queue(GateOperations, EventOperations, InspectOperations, RecoveryOperations, StatsOperations, ProcessOperations):
    """One named queue, opened by `Queue.open`.

    Every method raises UnavailableError if the server does not reply, and ConfigError for an error that a retry
    cannot fix. A call without a reply may be repeated: with the same nonce if it has one, otherwise unchanged.
    """

    def __init__(
        self,
        name: str,
        connections: ServerConnections,
        options: QueueOptions,
        rng: Random,
        metrics: Metrics | None,
    ) -> None:
        self.name = name
        self.metrics = metrics
        self._connections = connections
        self._scripts = connections.scripts
        self._log = EventLog(connections.blocking, f"pr:{{{name}}}:events")
        self._retry = options.retry
        self._rng = rng
        self._retention = options.retention

    @classmethod
    def open(
        cls,
        url: str,
        name: str,
        *,
        options: QueueOptions = DEFAULT_OPTIONS,
        clock: Clock | None = None,
        rng: Random | None = None,
        metrics: Metrics | None = None,
        **old: Unpack[OldQueueKeywords],
    ) -> AbstractAsyncContextManager[Queue]:
        """Open a queue. It is created by its first job.

        Args:
            url: URL of the server, see `postroad.queue.redis.url`.
            name: Name of the queue.
            options: How the queue treats its jobs.
            clock: Clock of the queue. None: the server's, which all workers share.
            rng: Spreads delays.
            metrics: Receives measurements.
            old: Deprecated: options as keywords.

        Returns:
            The queue, as an asynchronous context.

        Raises:
            ConfigError: The URL or the name is not valid, or the server refuses this client.
            StateError: The server may lose jobs (it evicts keys, or has no append-only file), or the queue is in
                shards.
            UnavailableError: The server does not reply.
        """
        options = with_old_keywords(options, old)
        if not name or "}" in name:
            raise ConfigError(f"{name!r} is not a valid queue name.", remedy="It may not be empty or contain a brace.")
        ran = partial(metrics.script_ran, name) if metrics else None
        connections = ServerConnections(url, f"pr:{{{name}}}", clock, ran, options.sync_replicas)
        return cls(name, connections, options, rng or Random(), metrics)._opened(options)  # noqa: S311

    @asynccontextmanager
    async def _opened(self, options: QueueOptions) -> AsyncIterator[Queue]:
        try:
            await require_persistence(self._connections.client, options)
            await require_unsharded(self._connections.client, self.name)
            yield self
        finally:
            await self._connections.aclose()

    async def enqueue(self, lane: Lane, jobs: Sequence[Job]) -> Enqueued:
        """Enqueue any number of jobs. A known id is not changed.

        Args:
            lane: Lane of the jobs.
            jobs: Jobs, in their order.

        Returns:
            How many jobs were accepted, and how many ids were known.

        Raises:
            UnavailableError: The server does not reply.
        """
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
        """Move due jobs to their lanes. `claim` does so as well.

        Args:
            limit: Maximum number of jobs.

        Returns:
            Number of moved jobs.

        Raises:
            UnavailableError: The server does not reply.
        """
        return await self._scripts.promote(limit, self._retention.remember_ms)

    async def reschedule(self, ids: Sequence[str], due_ms: int) -> list[bool]:
        """Change the due time of scheduled jobs.

        Args:
            ids: Ids of jobs.
            due_ms: Due time, in ms since the epoch. One that has passed: now.

        Returns:
            For each id, whether it was scheduled.

        Raises:
            UnavailableError: The server does not reply.
        """
        moved: list[bool] = []
        for start in range(0, len(ids), MAX_JOBS):
            chunk = await self._scripts.reschedule(due_ms, *ids[start : start + MAX_JOBS])
            moved += [was_scheduled == 1 for was_scheduled in chunk]
        return moved

    async def cancel(self, ids: Sequence[str], cause: str) -> int:
        """End queued and scheduled jobs. Jobs in other states are not affected.

        Args:
            ids: Ids of jobs.
            cause: Reason, for the events.

        Returns:
            Number of jobs that ended.

        Raises:
            UnavailableError: The server does not reply.
        """
        cancelled = 0
        for start in range(0, len(ids), MAX_JOBS):
            cancelled += await self._scripts.cancel(cause, *ids[start : start + MAX_JOBS])
        return cancelled

    async def claim(self, worker: str, *, want: int, lease_ms: int, nonce: str) -> Batch:
        """Lease jobs that every gate of their lanes admits now.

        Args:
            worker: Name of the caller. It may make one call at a time: the queue stores its last nonce for
                ``lease_ms``.
            want: Maximum number of jobs, 1 to 1000.
            lease_ms: Duration of the leases, in ms.
            nonce: Unique id of this call. The same nonce again returns the same jobs, without those settled since.

        Returns:
            The claimed jobs, and when to claim again.

        Raises:
            UnavailableError: The server does not reply.
        """
        want = min(want, MAX_JOBS)
        reply = await self._scripts.claim(worker, nonce, want, lease_ms, self._retention.bounds)
        return read_settled(reply).batch

    async def mark(self, jobs: Sequence[ClaimedJob]) -> list[bool]:
        """Mark jobs directly before their irreversible act.

        Args:
            jobs: Claimed jobs.

        Returns:
            For each job, whether its lease is valid. If not, the act must not happen.

        Raises:
            UnavailableError: The server does not reply.
        """
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
        """Settle jobs, append their events and claim the next batch, in one call.

        An uncertain job is settled by its own token as well. If an id occurs twice, its first verdict counts.

        Args:
            worker: Name of the caller, see `claim`.
            verdicts: Claimed jobs with their verdicts.
            want: Maximum number of jobs to claim, 0 to 1000.
            lease_ms: Duration of the new leases, in ms.
            nonce: Unique id of this call. The same nonce again changes nothing and returns the same reply.

        Returns:
            Ids whose lease was lost, and the claimed jobs.

        Raises:
            UnavailableError: The server does not reply.
        """
        done, commands, notes, twice = self._partition(verdicts)
        nonce, want = nonce or uuid4().hex, min(want, MAX_JOBS)
        reply = await self._scripts.settle(
            worker, nonce, want, lease_ms, self._retention.bounds, done_of(done), _pack(commands), *notes
        )
        settled = read_settled(reply)
        settled.stale.extend(twice)
        return settled

    def _partition(
        self, verdicts: Sequence[tuple[ClaimedJob, Verdict]]
    ) -> tuple[list[tuple[ClaimedJob, Done]], list[SettleCommand], list[bytes], list[str]]:
        """Split verdicts into completed jobs, commands for the others with their notes, and ids that occur twice."""
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
        """Renew leases.

        Args:
            jobs: Claimed jobs.
            lease_ms: Duration of the leases from now, in ms.

        Returns:
            For each job, whether its lease is valid.

        Raises:
            UnavailableError: The server does not reply.
        """
        return [held == 1 for held in await self._scripts.extend(_leases(jobs), lease_ms)]

    async def reap(self, limit: int = 1000) -> Reaped:
        """End expired leases. `claim` does so as well, 100 at a time.

        Args:
            limit: Maximum number of leases.

        Returns:
            How many jobs were released, and how many are uncertain.

        Raises:
            UnavailableError: The server does not reply.
        """
        return Reaped(*await self._scripts.reap(limit))

    async def resolve(self, id: str, verdict: Done | Release | Dead) -> None:  # noqa: A002 - the field's word
        """Settle an uncertain job.

        Args:
            id: Id of the job.
            verdict: Done: the act happened. Release: it did not, try again. Dead: it did not, and is not tried again.

        Raises:
            StateError: The job is not uncertain.
            UnavailableError: The server does not reply.
        """
        found = read_uncertain(await self._scripts.uncertain(1, id))
        if found:
            held = found[0]
            job = ClaimedJob(held.id, held.token, held.attempt, held.claim, b"", 0, held.lane)
            if not (await self.settle(f"resolve:{id}", [(job, verdict)])).stale:
                return
        raise StateError(f"Job {id} is not uncertain.", remedy="Look again: it may have been resolved meanwhile.")

    async def reconnect(self) -> None:
        """Close every connection. Calls in progress fail, and the next call opens a new connection."""
        await self._connections.drop()

    async def audit(self) -> list[str]:
        """Check the invariants. It reads every job, in steps of some milliseconds each, see `postroad.queue.audit`.

        Returns:
            One sentence for each invariant that does not hold.

        Raises:
            UnavailableError: The server does not reply.
        """
        return await audit(self._scripts)


def _leases(jobs: Sequence[ClaimedJob]) -> bytes:
    return _pack(([job.id for job in jobs], [job.token for job in jobs]))
