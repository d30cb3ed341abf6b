# ruff: noqa: A001 - an id is called id, here as in the queue
"""A state machine that drives the real queue and its model, and compares them after each step."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import count
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from postroad.queue import (
    Batch,
    ClaimedJob,
    Event,
    Gate,
    Job,
    JobClass,
    Lane,
    Queue,
    QueueOptions,
    Quota,
    Rate,
    Retention,
    RetryPolicy,
)
from tests.kit.clock import FakeClock
from tests.model.gate import FOREVER_MS
from tests.model.queue import SWEEP_MS, Happened, Model

T = TypeVar("T")

LANES = [
    Lane(name="a", gates=("g1",), group="x"),
    Lane(name="b", gates=("g1", "g2"), group="x"),
    Lane(name="c", gates=("g2", "g3"), job_class=JobClass.URGENT, group="y"),
    Lane(name="d", gates=(), job_class=JobClass.BULK, group="y"),
    Lane(name="e", gates=("g3", "g1"), weight=3.0),
]
LEASE_MS = 60_000
LONGEST_PAUSE_MS = 30_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
REMEMBER_MS = 500_000
POLICY = RetryPolicy(attempts=2, delays_ms=(5_000, 10_000))
MAX_SETTLED = 8
KEEP = Retention(done=3, failed=2, remember_ms=REMEMBER_MS)
ENDINGS = {"expired", "cancelled"}

lanes = st.sampled_from(LANES)
workers = st.sampled_from(["w1", "w2"])
gates = st.sampled_from(["g1", "g2", "g3"])
groups = st.sampled_from(["x", "y"])
offsets_ms = st.sampled_from([-1, 0, 1, 700, 5_000, 61_000])
# Most jobs are due now and never expire, and most gates are open. Otherwise few jobs would be claimed.
dues_ms = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 700, 5_000])
expiries_ms = st.sampled_from([0, 0, 0, 0, 700, 5_000, 61_000])
rates = st.builds(
    Rate, count=st.sampled_from([1, 3, 10]), per_ms=st.sampled_from([1000, 60_000]), burst=st.integers(1, 4)
)
_queue_names = count()


def plain(rate: Rate | None) -> tuple[float, int, int] | None:
    return None if rate is None else (rate.count, rate.per_ms, rate.burst)


class QueueMachine(RuleBasedStateMachine):
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.model = Model(
            {lane.name: lane.gates for lane in LANES}, {lane.name: lane.group for lane in LANES}, REMEMBER_MS
        )
        self.claims: list[ClaimedJob] = []
        self.last: dict[str, tuple[Any, ...]] = {}
        self.ids: list[str] = []
        self.nonces = count()
        self.drawn = 0
        self.runner = asyncio.Runner()
        self.opened = Queue.open(
            self.url, f"model{next(_queue_names)}", clock=self.clock, options=QueueOptions(retry=POLICY, retention=KEEP)
        )
        self.queue = self.run(self.opened.__aenter__())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.opened.__aexit__(None, None, None))
        self.runner.close()

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    # -- rules

    @initialize(rate=rates, limit=st.sampled_from([2, 5, 9]), left=st.sampled_from([3, 8]))
    def fill(self, rate: Rate, limit: int, left: int) -> None:
        self.set_limits("g1", rate, None, None, 0)
        self.set_limits("g2", None, None, left, 60_000)
        self.set_limits("g3", None, limit, None, 0)
        for lane in LANES:
            self.enqueue_these(lane, [f"{lane.name}{n}" for n in range(6)], 0, 0)
        self._claim("w1", 20)

    @rule(lane=lanes, fresh=st.integers(1, 8), data=st.data(), due=dues_ms, expires=expiries_ms)
    def enqueue(self, lane: Lane, fresh: int, data: st.DataObject, due: int, expires: int) -> None:
        ids = [f"j{len(self.ids) + n}" for n in range(fresh)]
        self.enqueue_these(lane, [*ids, *self.some_ids(data)], due, expires)

    def enqueue_these(self, lane: Lane, ids: list[str], due: int, expires: int) -> None:
        due_ms = self.now_ms + due if due else 0
        expires_ms = self.now_ms + expires if expires else 0
        jobs = [Job(id=id, payload=id.encode(), due_ms=due_ms, expires_ms=expires_ms) for id in ids]
        taken = [self.model.enqueue(lane.name, job.id, job.payload, due_ms, expires_ms, self.now_ms) for job in jobs]
        enqueued = self.run(self.queue.enqueue(lane, jobs))
        assert (enqueued.accepted, enqueued.known) == (sum(taken), len(taken) - sum(taken))
        self.ids += [id for id in ids if id not in self.ids]

    def some_ids(self, data: st.DataObject, state: str = "") -> list[str]:
        """Return any ids, or ids in a state if there are some."""
        pool = [id for id, job in self.model.jobs.items() if job.state == state] or self.ids
        ids: list[str] = data.draw(st.lists(st.sampled_from(pool), max_size=4))
        return ids

    @rule(ms=st.sampled_from([1, 99, 333, 1000, 5_000, 30_000, 60_000, REMEMBER_MS]))
    def advance(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(ms=st.sampled_from([-1, -700, -5_000, -HOUR_MS, -DAY_MS, HOUR_MS, DAY_MS]), again=st.booleans())
    def step(self, ms: int, again: bool) -> None:
        """The server's clock steps. A rate or a pause must not hold jobs for the size of the step."""
        self.clock.advance(ms)
        if again:
            self._claim("w1", 20)
            for gate in self.model.gates.values():
                if gate.rate:
                    ahead_us = gate.tat_us - self.now_ms * 1000
                    assert ahead_us <= gate.rate[2] * gate.interval_us + SWEEP_MS * 1000
                if 0 < gate.paused_ms < FOREVER_MS:
                    assert gate.paused_ms - self.now_ms <= LONGEST_PAUSE_MS + SWEEP_MS

    def _claim(self, worker: str, want: int) -> None:
        nonce = f"n{next(self.nonces)}"
        batch = self.run(self.queue.claim(worker, want=want, lease_ms=LEASE_MS, nonce=nonce))
        self.last[worker] = (nonce, None, want, batch, [])
        self.check_batch(batch, want)

    # Several rules of one kind, because other rules need their effects often.
    claim = rule(worker=workers, want=st.sampled_from([1, 3, 8, 20]))(_claim)
    claim_many = rule(worker=workers, want=st.just(20))(_claim)

    def forget_old(self) -> None:
        """Copy from the queue which old ids it has forgotten."""
        old = self.model.old(self.now_ms)
        for id, state in zip(old, self.run(self.queue.states(old)), strict=True):
            if state is None:
                del self.model.remembered[id]

    def check_batch(self, batch: Batch, want: int) -> None:
        now_ms, model = self.now_ms, self.model
        model.sweep(now_ms)
        self.forget_old()
        model.reap(now_ms)
        model.promote(now_ms)
        events = self.read()
        expired = {event.id for event in events if event.kind == "expired"}
        assert len(batch.jobs) <= want
        for job in batch.jobs:
            wanted = model.jobs[job.id]
            assert (job.lane, job.payload, job.expires_ms) == (wanted.lane, wanted.payload, wanted.expires_ms)
            assert (job.attempt, job.claim) == (wanted.attempts + 1, len(wanted.closed) + 1)
            assert job.closed == tuple(wanted.closed[-8:])
        # Jobs and events of one claim share the token sequence, so they are compared together.
        drawn = [(job.id, job.token) for job in batch.jobs]
        model.claimed(drawn, expired, LEASE_MS, now_ms)
        model.logs["failed"] += [event.id for event in events if event.kind == "expired"]
        self.compare(events)
        if len(batch.jobs) < want:
            chance_ms = model.next_chance_ms(now_ms)
            assert batch.next_ms is not None or chance_ms == float("inf")
            assert batch.next_ms is None or batch.next_ms <= max(chance_ms, now_ms)
            if batch.next_ms != now_ms:
                # No immediate next claim: then no admissible job is left.
                assert all(not queue or model.room(lane, now_ms) == 0 for lane, queue in model.queues.items())
        self.claims = (self.claims + batch.jobs)[-40:]

    @precondition(lambda self: self.last)
    @rule(data=st.data())
    def repeat_a_nonce(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.last)))
        nonce, verdicts, want, batch, stale = self.last[worker]
        if verdicts is None:
            again = self.run(self.queue.claim(worker, want=want, lease_ms=LEASE_MS, nonce=nonce))
        else:
            settled = self.run(self.queue.settle(worker, verdicts, want=want, lease_ms=LEASE_MS, nonce=nonce))
            assert settled.stale == stale
            again = settled.batch
        assert again.jobs == [job for job in batch.jobs if self.model.holds(job.id, job.token)]

    def set_limits(self, name: str, rate: Rate | None, limit: int | None, left: int | None, until: int) -> None:
        quota = None if left is None else Quota(left=left, until_ms=self.now_ms + until)
        self.model.notice_clock(self.now_ms)
        self.run(self.queue.set_gate(Gate(name=name, rate=rate, concurrency=limit, quota=quota)))
        gate = self.model.gates[name]
        gate.set_rate(plain(rate), self.now_ms)
        gate.limit = limit
        gate.set_quota(left, self.now_ms + until, self.model.last_token)

    # -- what must hold after every rule

    def read(self) -> list[Event]:
        return self.run(self._read())

    async def _read(self) -> list[Event]:
        events = await self.queue.read_events("model", "c", count=1000, block_ms=0, idle_ms=10**9)
        await self.queue.acknowledge("model", events)
        return events

    def compare(self, events: list[Event]) -> None:
        wanted, self.model.events = self.model.events, []
        # The order in which jobs of different lanes end within one script is not specified.
        events = [e for e in events if e.kind not in ENDINGS] + sorted(
            (e for e in events if e.kind in ENDINGS), key=lambda e: e.id
        )
        wanted = [e for e in wanted if e.kind not in ENDINGS] + sorted(
            (e for e in wanted if e.kind in ENDINGS), key=lambda e: e.id
        )
        assert [(e.kind.value, e.id, e.attempt, e.next_ms, e.cause) for e in events] == [
            (e.kind, e.id, e.attempt, e.next_ms, e.cause) for e in wanted
        ]
        for event, foreseen in zip(events, wanted, strict=True):
            self.check_token(event, foreseen)
        self.model.last_token = max(self.model.last_token, self.drawn)

    def check_token(self, event: Event, foreseen: Happened) -> None:
        if foreseen.token is not None:
            assert event.token == foreseen.token
        else:
            assert event.kind in ENDINGS or event.token > self.model.last_token
            self.drawn = max(self.drawn, event.token)

    @invariant()
    def everything_is_where_the_model_has_it(self) -> None:
        self.run(self._check_state())

    async def _check_state(self) -> None:
        self.compare(await self._read())
        assert await self.queue.audit() == []
        wanted = [
            self.model.jobs[id].state if id in self.model.jobs else "remembered" * (id in self.model.remembered)
            for id in self.ids
        ]
        assert [state or "" for state in await self.queue.states(self.ids)] == wanted
        for state in await self.queue.gates():
            gate = self.model.gates[state.gate.name]
            room = gate.room(self.now_ms)
            assert state.in_flight == gate.in_flight >= 0
            assert state.capacity == (None if room == float("inf") else room)
            quota = state.gate.quota
            shown = (plain(state.gate.rate), state.gate.concurrency, None if quota is None else quota.left)
            assert shown == (gate.rate, gate.limit, gate.left)
