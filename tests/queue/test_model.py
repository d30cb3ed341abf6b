# ruff: noqa: A001 - an id is called id, here as in the queue
"""Compares the real queue with the model in `tests/model/queue.py`, and audits it after each step."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET, UnsetType

from postroad.errors import StateError
from postroad.queue import (
    Cancel,
    ClaimedJob,
    Dead,
    Defer,
    Done,
    EventKind,
    Gate,
    Quota,
    Rate,
    Release,
    Retry,
    Uncertain,
    Verdict,
)
from tests.model.gate import FOREVER_MS
from tests.model.machine import (
    KEEP,
    LEASE_MS,
    LONGEST_PAUSE_MS,
    MAX_SETTLED,
    POLICY,
    QueueMachine,
    gates,
    groups,
    offsets_ms,
    plain,
    rates,
    workers,
)


class Machine(QueueMachine):
    def _settle(self, data: st.DataObject, want: int, worker: str) -> None:
        chosen = self.choose(data)
        verdicts = [(job, data.draw(self.verdicts())) for job in chosen]
        nonce = f"n{next(self.nonces)}"
        settled = self.run(self.queue.settle(worker, verdicts, want=want, lease_ms=LEASE_MS, nonce=nonce))
        self.last[worker] = (nonce, verdicts, want, settled.batch, settled.stale)
        assert sorted(settled.stale) == sorted(self.settle_model(verdicts))
        if want:
            self.check_batch(settled.batch, want)
        else:
            assert settled.batch.jobs == []

    settle = precondition(lambda self: self.claims)(
        rule(data=st.data(), want=st.sampled_from([0, 5, 20]), worker=workers)(_settle)
    )
    settle_more = precondition(lambda self: self.claims)(rule(data=st.data(), want=st.just(8), worker=workers)(_settle))

    def choose(self, data: st.DataObject) -> list[ClaimedJob]:
        """Return mostly valid leases, sometimes any, which are then often invalid."""
        live = [job for job in self.claims if self.model.holds(job.id, job.token)]
        prefer: bool = data.draw(st.sampled_from([True, True, True, False]))
        pool = st.sampled_from(live if live and prefer else self.claims)
        chosen: list[ClaimedJob] = data.draw(st.lists(pool, min_size=3, max_size=MAX_SETTLED))
        return chosen

    def verdicts(self) -> st.SearchStrategy[Verdict]:
        at_ms = offsets_ms.map(lambda offset: self.now_ms + offset)
        return st.one_of(
            st.just(Done()),
            st.just(Retry(cause="c")),
            at_ms.map(lambda at_ms: Retry(cause="c", at_ms=at_ms)),
            st.builds(Defer, cause=st.just("c"), at_ms=at_ms, untried=st.booleans()),
            st.builds(Defer, cause=st.just("c"), delay_ms=st.sampled_from([0, 700, 5_000]), untried=st.booleans()),
            st.just(Dead(cause="c")),
            st.just(Uncertain(cause="c")),
            st.just(Cancel(cause="c")),
            st.just(Release()),
        )

    def settle_model(self, verdicts: list[tuple[ClaimedJob, Verdict]]) -> list[str]:
        stale: list[str] = []
        released: dict[str, list[str]] = {}
        first: dict[str, tuple[ClaimedJob, Verdict]] = {}
        for job, verdict in verdicts:
            if job.id in first:
                stale.append(job.id)
            first.setdefault(job.id, (job, verdict))
        # Completed jobs come first.
        for job, verdict in sorted(first.values(), key=lambda settled: not isinstance(settled[1], Done)):
            kind, at_ms, cause = self.meaning(job, verdict)
            if not self.model.settle(job.id, job.token, kind, at_ms, cause, self.now_ms):
                stale.append(job.id)
                continue
            if kind == "released" and job.id in self.model.jobs:
                released.setdefault(self.model.jobs[job.id].lane, []).append(job.id)
        for lane, ids in released.items():
            # Jobs released together keep their order at the head.
            rest = [id for id in self.model.queues[lane] if id not in ids]
            self.model.queues[lane] = ids + rest
        return stale

    def meaning(self, job: ClaimedJob, verdict: Verdict) -> tuple[str, int, str]:
        match verdict:
            case Retry() if job.attempt >= POLICY.attempts:
                return "dead", 0, verdict.cause
            case Retry():
                delay_ms = POLICY.delays_ms[job.attempt - 1]
                return "retry", verdict.at_ms or self.now_ms + delay_ms, verdict.cause
            case Defer():
                at_ms = self.now_ms + verdict.delay_ms if verdict.at_ms is None else verdict.at_ms
                return "delay" if verdict.untried else "defer", at_ms, verdict.cause
            case Cancel():
                return "cancelled", 0, verdict.cause
            case Release():
                return "released", 0, ""
            case Done():
                return "done", 0, ""
            case Dead() | Uncertain():
                return type(verdict).__name__.lower(), 0, verdict.cause

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        chosen = self.choose(data)
        held = [self.model.holds(job.id, job.token) for job in chosen]
        for job in held:
            if job:
                job.marked = True
        assert self.run(self.queue.mark(chosen)) == [job is not None for job in held]

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), lease_ms=st.sampled_from([1, 30_000, 90_000]))
    def extend(self, data: st.DataObject, lease_ms: int) -> None:
        chosen = self.choose(data)
        held = [self.model.holds(job.id, job.token) for job in chosen]
        for job in held:
            if job:
                job.lease_end_ms = self.now_ms + lease_ms
        assert self.run(self.queue.extend(chosen, lease_ms)) == [job is not None for job in held]

    @rule()
    def reap(self) -> None:
        reaped = self.run(self.queue.reap())
        assert (reaped.released, reaped.uncertain) == self.model.reap(self.now_ms)

    @rule()
    def promote(self) -> None:
        assert self.run(self.queue.promote()) == self.model.promote(self.now_ms)
        self.forget_old()

    @rule(
        name=gates,
        rate=st.none() | st.none() | rates,
        limit=st.sampled_from([None, None, None, 0, 1, 2, 5]),
        left=st.sampled_from([None, None, None, 0, 3, 8]),
        until=st.sampled_from([500, 30_000]),
    )
    def set_gate(self, name: str, rate: Rate | None, limit: int | None, left: int | None, until: int) -> None:
        self.set_limits(name, rate, limit, left, until)

    @rule(
        name=gates,
        rate=st.just(UNSET) | st.none() | rates,
        limit=st.sampled_from([UNSET, UNSET, None, 0, 2, 5]),
        left=st.sampled_from([UNSET, UNSET, None, 0, 3, 8]),
        until=st.sampled_from([500, 30_000]),
    )
    def update_gate(
        self,
        name: str,
        rate: Rate | UnsetType | None,
        limit: int | UnsetType | None,
        left: int | UnsetType | None,
        until: int,
    ) -> None:
        """Limits that are not named, and their use, are kept."""
        quota = Quota(left=left, until_ms=self.now_ms + until) if isinstance(left, int) else left
        self.model.notice_clock(self.now_ms)
        self.run(self.queue.update_gate(name, rate=rate, concurrency=limit, quota=quota))
        gate = self.model.gates[name]
        if rate is not UNSET:
            gate.set_rate(plain(rate), self.now_ms)
        if limit is not UNSET:
            gate.limit = limit
        if left is not UNSET:
            gate.set_quota(left, self.now_ms + until, self.model.last_token)

    @rule(name=gates, until=st.sampled_from([1, 1000, LONGEST_PAUSE_MS, None]), relative=st.booleans())
    def suspend(self, name: str, until: int | None, relative: bool) -> None:
        until_ms = None if until is None else self.now_ms + until
        self.model.notice_clock(self.now_ms)
        if relative and until is not None:
            self.run(self.queue.pause_gate_for(name, until))
        else:
            self.run(self.queue.pause_gate(name, until_ms))
        self.model.gates[name].suspend(FOREVER_MS if until_ms is None else until_ms, self.now_ms)

    @rule(names=st.sampled_from([["g1"], ["g2"], ["g3"], ["g1", "g2", "g3"]]))
    def lift(self, names: list[str]) -> None:
        self.model.notice_clock(self.now_ms)
        for name in names:
            self.run(self.queue.resume_gate(name))
            self.run(self.queue.set_gate(Gate(name=name)))
            gate = self.model.gates[name]
            gate.paused_ms, gate.rate, gate.limit, gate.left = 0, None, None, None

    @rule(data=st.data(), state=st.sampled_from(["queued", "scheduled", ""]))
    def cancel(self, data: st.DataObject, state: str) -> None:
        ids = self.some_ids(data, state)
        assert self.run(self.queue.cancel(ids, "cancel")) == self.model.cancel(ids, self.now_ms)

    @rule(data=st.data(), offset=offsets_ms)
    def reschedule(self, data: st.DataObject, offset: int) -> None:
        ids = self.some_ids(data, "scheduled")
        due_ms = self.now_ms + offset
        moved = self.run(self.queue.reschedule(ids, due_ms))
        assert moved == self.model.reschedule(ids, due_ms, self.now_ms)

    @rule(group=groups)
    def pause(self, group: str) -> None:
        self.run(self.queue.pause_group(group))
        self.model.paused.add(group)

    @rule(group=groups)
    def resume(self, group: str) -> None:
        assert self.run(self.queue.resume_group(group)) == (group in self.model.paused)
        self.model.paused.discard(group)

    # A cancelled group has no jobs left, so cancel rarely.
    @rule(group=groups, really=st.sampled_from([True, False, False]))
    def cancel_group(self, group: str, really: bool) -> None:
        if really:
            ended = self.run(self.queue.cancel_group(group, "over"))
            assert ended == self.model.cancel_group(group, "over", self.now_ms)

    @rule(data=st.data(), again=st.sampled_from([True, True, False]))
    def exhume(self, data: st.DataObject, again: bool) -> None:
        ids = self.some_ids(data, "dead")
        exhume = self.queue.replay if again else self.queue.drop
        wanted = sum(self.model.exhume(id, replay=again, now_ms=self.now_ms) for id in ids)
        assert self.run(exhume(ids)) == wanted

    @rule(data=st.data(), verdict=st.sampled_from([Done(), Release(), Dead(cause="c")]))
    def resolve(self, data: st.DataObject, verdict: Done | Release | Dead) -> None:
        id = next(iter(self.some_ids(data, "uncertain")), "nobody")
        job = self.model.jobs.get(id)
        if job and job.state == "uncertain":
            self.run(self.queue.resolve(id, verdict))
            claimed = ClaimedJob(id, job.token, 0, 0, b"", 0, job.lane)
            assert self.settle_model([(claimed, verdict)]) == []
        else:
            with pytest.raises(StateError):
                self.run(self.queue.resolve(id, verdict))

    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        logs = {"done": self.model.logs["done"][-KEEP.done :], "failed": self.model.logs["failed"][-KEEP.failed :]}
        # Jobs that completed in one call are dropped together.
        perhaps = self.model.logs["done"][-KEEP.done - MAX_SETTLED :]
        for id in {*self.some_ids(data), *logs["done"], *logs["failed"], *self.model.logs["done"][:2]}:
            found = self.run(self.queue.find(id))
            # Events are read and acknowledged at once, so only the history contains them.
            kinds = [event.kind for event in found.history]
            assert logs["done"].count(id) <= kinds.count(EventKind.DONE) <= perhaps.count(id)
            assert len(kinds) - kinds.count(EventKind.DONE) == logs["failed"].count(id)
            job = self.model.jobs.get(id)
            assert found.state == (job.state if job else "remembered" if id in self.model.remembered else None)
            if job:
                assert found.lane
                assert (found.lane.name, found.payload) == (job.lane, job.payload)
                assert (found.attempts, found.claims) == (job.attempts, len(job.closed))
                assert (found.cancelled_for or "") == job.doomed
            if job and job.state == "queued":
                assert (found.ahead or 0) >= self.model.queues[job.lane].index(id)

    @rule(data=st.data())
    def explain(self, data: st.DataObject) -> None:
        for id in self.some_ids(data, "queued"):
            job, said = self.model.jobs.get(id), self.run(self.queue.explain(id))
            assert said.words
            if job and job.state == "queued":
                shut = self.model.room(job.lane, self.now_ms) == 0
                assert (said.held_by is not None) == shut
                if said.not_before_ms is not None:
                    opens = [self.model.gates[gate].opens_ms(self.now_ms) for gate in self.model.lanes[job.lane]]
                    assert said.not_before_ms >= max([self.now_ms, *opens]) - 1

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        ids = self.some_ids(data)
        for id in ids:
            self.model.remembered.pop(id, None)
        self.run(self.queue.acknowledge("model", [], forget=ids))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", range(5))
def test_the_queue_behaves_like_the_model(redis_url: str, part: int) -> None:
    # In parts: each ends long before its guard on a busy machine, and any free worker takes the next. Where Hypothesis
    # draws the same in every run, as it does in CI, each part needs a seed of its own.
    draws = part if settings().derandomize else None
    machine = seed(draws)(type("SeededMachine", (Machine,), {"url": redis_url}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            report_multiple_bugs=False,
        ),
    )
