# ruff: noqa: A001, A002 - an id is called id, here as in the queue
"""A model of the queue in plain Python, for one process and one thread, without a server.

The real queue chooses which lane is served first. The model gets the claimed jobs, and checks whether the claim was
allowed and complete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.model.gate import ModelGate

SWEEP_MS = 1000


class Happened(NamedTuple):
    """An event that the model expects. ``token`` None: a new token, of which only its order is known."""

    kind: str
    id: str
    token: int | None
    attempt: int = 0
    next_ms: int = 0
    cause: str = ""


@dataclass
class ModelJob:
    id: str
    lane: str
    payload: bytes
    expires_ms: int
    state: str
    due_ms: int = 0
    attempts: int = 0
    closed: list[int] = field(default_factory=list)
    token: int = 0
    marked: bool = False
    lease_end_ms: int = 0
    doomed: str = ""
    """The cause of the cancellation of its group."""


@dataclass
class Model:
    lanes: dict[str, tuple[str, ...]]
    groups: dict[str, str]
    remember_ms: int
    gates: dict[str, ModelGate] = field(default_factory=dict)
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    queues: dict[str, list[str]] = field(default_factory=dict)
    remembered: dict[str, int] = field(default_factory=dict)
    events: list[Happened] = field(default_factory=list)
    last_token: int = 0
    logs: dict[str, list[str]] = field(default_factory=lambda: {"done": [], "failed": []})
    paused: set[str] = field(default_factory=set)
    seen_ms: int = 0
    swept_ms: int = 0

    def __post_init__(self) -> None:
        self.queues = {lane: [] for lane in self.lanes}
        self.gates = {gate: ModelGate() for gates in self.lanes.values() for gate in gates}

    # -- in

    def enqueue(self, lane: str, id: str, payload: bytes, due_ms: int, expires_ms: int, now_ms: int) -> bool:
        if id in self.jobs or id in self.remembered:
            return False
        job = self.jobs[id] = ModelJob(id, lane, payload, expires_ms, "scheduled", due_ms)
        self._place(job, due_ms, now_ms)
        return True

    def _place(self, job: ModelJob, at_ms: int, now_ms: int) -> None:
        if at_ms > now_ms:
            job.state, job.due_ms = "scheduled", at_ms
        elif not self._ends(job, now_ms):
            job.state = "queued"
            self.queues[job.lane].append(job.id)

    def _ends(self, job: ModelJob, now_ms: int) -> bool:
        """End a job that is returned to a cancelled group."""
        if job.doomed:
            self._end(job, Happened("cancelled", job.id, None, job.attempts, 0, job.doomed), now_ms)
        return bool(job.doomed)

    def cancel_group(self, group: str, cause: str, now_ms: int) -> int:
        for job in self.jobs.values():
            if self.groups[job.lane] == group and not job.doomed:
                job.doomed = cause
        self.paused.discard(group)
        ending = [job for job in self.jobs.values() if job.doomed and job.state in {"queued", "scheduled"}]
        for job in ending:
            if job.state == "queued":
                self.queues[job.lane].remove(job.id)
            self._ends(job, now_ms)
        return len(ending)

    def reschedule(self, ids: Sequence[str], due_ms: int, now_ms: int) -> list[bool]:
        moved = []
        for id in ids:
            job = self.jobs.get(id)
            moved.append(job is not None and job.state == "scheduled")
            if job and moved[-1]:
                self._place(job, due_ms, now_ms)
        return moved

    def cancel(self, ids: Sequence[str], now_ms: int) -> int:
        cancelled = 0
        for id in ids:
            job = self.jobs.get(id)
            if job and job.state in {"queued", "scheduled"}:
                if job.state == "queued":
                    self.queues[job.lane].remove(id)
                self._end(job, Happened("cancelled", id, None, job.attempts, 0, "cancel"), now_ms)
                cancelled += 1
        return cancelled

    def _end(self, job: ModelJob, event: Happened, now_ms: int) -> None:
        del self.jobs[job.id]
        self.remembered[job.id] = now_ms
        self.events.append(event)
        # Expired jobs are logged in the order of the claim: see `claimed`.
        if event.kind == "done":
            self.logs["done"].append(job.id)

    # -- time

    def notice_clock(self, now_ms: int) -> None:
        """Detect that the server's clock stepped back. Changes of gates and sweeps do this."""
        step_ms, self.seen_ms = self.seen_ms - now_ms, now_ms
        if step_ms > 0:
            for gate in self.gates.values():
                gate.clock_stepped_back(now_ms)
            for job in self.jobs.values():
                if job.state == "in_flight":
                    job.lease_end_ms -= step_ms

    def sweep(self, now_ms: int) -> None:
        """Sweep at a claim, at most once a second."""
        if not 0 <= now_ms - self.swept_ms < SWEEP_MS:
            self.swept_ms = now_ms
            self.notice_clock(now_ms)

    def old(self, now_ms: int) -> list[str]:
        """Return remembered ids that may be deleted. Claims delete some at a time."""
        return [id for id, ended_ms in self.remembered.items() if ended_ms <= now_ms - self.remember_ms]

    def promote(self, now_ms: int) -> int:
        due = [job for job in self.jobs.values() if job.state == "scheduled" and job.due_ms <= now_ms]
        for job in sorted(due, key=lambda job: (job.due_ms, job.id)):
            self._place(job, job.due_ms, now_ms)
        return len(due)

    def reap(self, now_ms: int) -> tuple[int, int]:
        over = [job for job in self.jobs.values() if job.state == "in_flight" and job.lease_end_ms <= now_ms]
        over.sort(key=lambda job: (job.lease_end_ms, job.id))
        back: dict[str, list[str]] = {}
        returned = 0
        for job in over:
            self._land(job, refund=not job.marked, now_ms=now_ms)
            kind = "uncertain" if job.marked else "released"
            self.events.append(Happened(kind, job.id, job.token, job.attempts + 1, 0, "lease"))
            if job.marked:
                job.state = "uncertain"
            else:
                job.closed.append(job.token)
                returned += 1
                if not self._ends(job, now_ms):
                    job.state = "queued"
                    back.setdefault(job.lane, []).append(job.id)
        for lane, ids in back.items():
            self.queues[lane] = ids + self.queues[lane]
        return returned, len(over) - returned

    def _land(self, job: ModelJob, *, refund: bool, now_ms: int) -> None:
        if job.state == "in_flight":
            for gate in self.lanes[job.lane]:
                self.gates[gate].credit(job.token if refund else None, now_ms)

    # -- out

    def room(self, lane: str, now_ms: int) -> float:
        if self.groups[lane] in self.paused:
            return 0
        return min((self.gates[gate].room(now_ms) for gate in self.lanes[lane]), default=math.inf)

    def claimed(self, ids_and_tokens: Sequence[tuple[str, int]], expired: set[str], lease_ms: int, now_ms: int) -> None:
        """Check that a claim of these jobs, in this order, and of these expired ones, was allowed."""
        for lane, queue in self.queues.items():
            taken = [id for id, _ in ids_and_tokens if self.jobs[id].lane == lane]
            gone = [id for id in queue if id in set(taken) | expired]
            # Jobs leave their lane from its head, in order, however many claims share the lane.
            assert queue[: len(gone)] == gone
            assert [id for id in gone if id not in expired] == taken
            assert len(taken) <= self.room(lane, now_ms)
            for id in gone:
                job = self.jobs[id]
                assert (0 < job.expires_ms <= now_ms) == (id in expired)
                if id in expired:
                    self._end(job, Happened("expired", id, None, job.attempts), now_ms)
            del queue[: len(gone)]
            for gate in self.lanes[lane]:
                assert len(taken) <= self.gates[gate].room(now_ms)
                if taken:
                    self.gates[gate].debit(len(taken), now_ms)
        # One token for all jobs of a claim, newer than any earlier one.
        tokens = {token for _, token in ids_and_tokens}
        assert len(tokens) <= 1
        assert all(token > self.last_token for token in tokens)
        self.last_token = max(tokens, default=self.last_token)
        for id, token in ids_and_tokens:
            job = self.jobs[id]
            job.state, job.token, job.marked, job.lease_end_ms = "in_flight", token, False, now_ms + lease_ms

    def next_chance_ms(self, now_ms: int) -> float:
        """Return the earliest time at which a claim may return a job if nothing else happens."""
        chances: list[float] = [job.due_ms for job in self.jobs.values() if job.state == "scheduled"]
        for lane, queue in self.queues.items():
            if queue and self.groups[lane] not in self.paused:
                chances.append(max((self.gates[g].opens_ms(now_ms) for g in self.lanes[lane]), default=now_ms))
        return min(chances, default=math.inf)

    def holds(self, id: str, token: int) -> ModelJob | None:
        job = self.jobs.get(id)
        return job if job and job.state == "in_flight" and job.token == token else None

    def settle(self, id: str, token: int, verdict: str, at_ms: int, cause: str, now_ms: int) -> bool:
        """Settle a job. Return False if the lease is stale."""
        job = self.jobs.get(id)
        if not job or job.state not in {"in_flight", "uncertain"} or job.token != token:
            return False
        if verdict == "uncertain" and job.state == "uncertain":
            return True
        self._land(job, refund=verdict in {"cancelled", "released", "delay"}, now_ms=now_ms)
        verdict = "defer" if verdict == "delay" else verdict
        attempt = job.attempts + 1
        event = Happened(verdict, id, token, attempt, 0, cause)
        match verdict:
            case "done" | "cancelled":
                self._end(job, event, now_ms)
                return True
            case "retry" | "defer":
                job.attempts += verdict == "retry"
                job.closed.append(job.token)
                self.events.append(event._replace(next_ms=at_ms))
                self._place(job, at_ms, now_ms)
                return True
            case "released":
                job.closed.append(job.token)
                self.events.append(event._replace(next_ms=now_ms))
                if not self._ends(job, now_ms):
                    job.state = "queued"
                    self.queues[job.lane].insert(0, id)
                return True
            case "dead":
                job.attempts += 1
                job.closed.append(job.token)
                job.state = "dead"
                self.logs["failed"].append(id)
            case "uncertain":
                job.state = "uncertain"
        self.events.append(event)
        return True

    # -- dead letters

    def exhume(self, id: str, *, replay: bool, now_ms: int) -> bool:
        job = self.jobs.get(id)
        if not job or job.state != "dead":
            return False
        if replay:
            job.attempts = 0
            self.events.append(Happened("replayed", id, None, 0, 0, "c"))
            self._place(job, 0, now_ms)
        else:
            del self.jobs[id]
            self.remembered[id] = now_ms
        return True
