from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from postroad.queue import (
    FOREVER_MS,
    Cancel,
    Defer,
    Done,
    Gate,
    GateState,
    Lane,
    Quota,
    Rate,
    Release,
    Retry,
    Verdict,
)
from tests.queue.conftest import Bench, ids, jobs


def lane(*gates: str, name: str = "a") -> Lane:
    return Lane(name=name, gates=gates)


async def gate_state(bench: Bench, name: str) -> GateState:
    return next(state for state in await bench.queue.gates() if state.gate.name == name)


async def test_a_gate_reads_back_as_it_was_set(bench: Bench) -> None:
    gate = Gate(
        name="all",
        rate=Rate(count=7, per_ms=1000, burst=3),
        concurrency=5,
        quota=Quota(left=100, until_ms=bench.clock.now_ms() + 9),
        paused_until_ms=FOREVER_MS,
    )
    await bench.queue.set_gate(gate)
    assert (await gate_state(bench, "all")).gate == gate
    await bench.queue.set_gate(Gate(name="all"))
    assert (await gate_state(bench, "all")).gate == Gate(name="all", paused_until_ms=FOREVER_MS)
    await bench.queue.resume_gate("all")
    assert (await gate_state(bench, "all")).gate == Gate(name="all")


ALL_LIMITS: dict[str, Any] = {
    "rate": Rate(count=1, per_ms=3_600_000, burst=9),
    "concurrency": 8,
    "quota": Quota(left=7, until_ms=FOREVER_MS, size=7),
    "owner": "settings",
}


@pytest.mark.parametrize("changed", ALL_LIMITS)
@pytest.mark.parametrize("removed", [False, True])
async def test_an_update_keeps_every_limit_that_it_does_not_name(bench: Bench, changed: str, removed: bool) -> None:
    await bench.queue.update_gate("g", **ALL_LIMITS)
    await bench.queue.pause_gate("g", FOREVER_MS - 1)
    others: dict[str, Any] = {
        "rate": Rate(count=2, per_ms=1000),
        "concurrency": 0,
        "quota": Quota(left=0, until_ms=5),
        "owner": "shaping",
    }
    value: Any = ("" if changed == "owner" else None) if removed else others[changed]
    await bench.queue.update_gate("g", **{changed: value})
    state = await gate_state(bench, "g")
    limits = ALL_LIMITS | {changed: value}
    assert state.owner == limits.pop("owner")
    assert state.gate == Gate(name="g", paused_until_ms=FOREVER_MS - 1, **limits)


async def test_an_update_keeps_the_use_of_the_other_limits(bench: Bench) -> None:
    await bench.queue.update_gate("g", **ALL_LIMITS)
    await bench.queue.enqueue(lane("g"), jobs(*map(str, range(20))))
    assert len(await bench.claim(3)) == 3
    before = await gate_state(bench, "g")
    await bench.queue.update_gate("g", concurrency=100)
    after = await gate_state(bench, "g")
    assert (after.gate.quota, after.tat_ms, after.in_flight) == (before.gate.quota, before.tat_ms, 3)
    assert after.gate.quota == Quota(left=4, until_ms=FOREVER_MS, size=7)
    await bench.queue.update_gate("g", rate=None)
    assert len(await bench.claim(20)) == 4


async def test_an_update_creates_a_gate_without_lanes(bench: Bench) -> None:
    await bench.queue.update_gate("new", concurrency=0)
    await bench.queue.enqueue(lane("new"), jobs("1"))
    assert await bench.claim() == []
    await bench.queue.update_gate("new", concurrency=None)
    assert ids(await bench.claim()) == ["1"]


@pytest.mark.parametrize(("count", "per_ms", "burst"), [(100, 1000, 1), (3, 1000, 4), (7, 60_000, 2), (50, 1000, 25)])
async def test_no_window_sees_more_than_its_burst_and_its_rate(
    bench: Bench, count: float, per_ms: int, burst: int
) -> None:
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=count, per_ms=per_ms, burst=burst)))
    await bench.queue.enqueue(lane("g"), jobs(*map(str, range(60))))
    admitted_ms: list[int] = []
    while len(admitted_ms) < 60:
        batch = await bench.batch(10)
        admitted_ms += [bench.clock.now_ms()] * len(batch.jobs)
        await bench.settle(Done(), *batch.jobs)
        if not batch.jobs:
            assert batch.next_ms is not None
            # At the returned time the gate always admits a job.
            bench.clock.advance(batch.next_ms - bench.clock.now_ms())
            assert (await gate_state(bench, "g")).capacity
    interval_ms = per_ms / count
    for first in range(60):
        for last in range(first, 60):
            window_ms = admitted_ms[last] - admitted_ms[first]
            assert last - first + 1 <= burst + window_ms / interval_ms + 1e-6
    # No capacity is wasted, except by rounding to whole milliseconds.
    assert admitted_ms[-1] - admitted_ms[0] <= (60 - burst) * interval_ms + len(set(admitted_ms))


async def test_a_throttled_gate_does_not_delay_other_lanes(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="slow", rate=Rate(count=1, per_ms=3_600_000)))
    for n in range(200):
        slow = lane("slow", name=f"slow{n}")
        await bench.queue.enqueue(slow, jobs(*(f"s{n}.{i}" for i in range(10))))
    await bench.queue.enqueue(lane("slow", name="long"), jobs(*(f"long{i}" for i in range(2000))))
    await bench.queue.enqueue(lane("free", name="free"), jobs(*(f"f{i}" for i in range(400))))
    got: list[str] = []
    started_s = time.perf_counter()
    while batch := await bench.claim():
        got += ids(batch)
    assert time.perf_counter() - started_s < 2.0
    assert len([name for name in got if name.startswith("f")]) == 400
    assert len(got) == 401


async def test_a_waking_gate_frees_no_more_lanes_than_it_admits_jobs(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=1, per_ms=1000, burst=1)))
    for n in range(50):
        await bench.queue.enqueue(lane("g", name=f"{n}"), jobs(f"{n}"))
    assert len(await bench.claim()) == 1
    assert (await bench.queue.stats()).parked_lanes == 49
    bench.clock.advance(1000)
    assert len(await bench.claim()) == 1
    assert (await bench.queue.stats()).parked_lanes == 48


async def test_concurrency_is_exact_for_every_verdict(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="g", concurrency=5))
    for n in range(4):
        await bench.queue.enqueue(lane("g", name=f"{n}"), jobs(*(f"{n}.{i}" for i in range(10))))
    held = await bench.claim()
    assert len(held) == 5
    assert await bench.claim() == []
    now_ms = bench.clock.now_ms()
    verdicts: list[Verdict] = [Done(), Retry(cause="c"), Cancel(cause="c"), Release(), Done()]
    for job, verdict in zip(held, verdicts, strict=True):
        await bench.settle(verdict, job)
        assert (await gate_state(bench, "g")).in_flight == 4
        [_] = await bench.claim()
    bench.clock.advance(60_000)
    assert (await bench.queue.reap()).released == 5
    assert (await gate_state(bench, "g")).in_flight == 0
    assert bench.clock.now_ms() == now_ms + 60_000


async def test_all_gates_are_debited_or_none(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="open", concurrency=100))
    await bench.queue.set_gate(Gate(name="shut", concurrency=0))
    await bench.queue.enqueue(lane("open", "shut"), jobs("1", "2"))
    assert await bench.claim() == []
    assert (await gate_state(bench, "open")).in_flight == 0
    await bench.queue.set_gate(Gate(name="shut", concurrency=1))
    assert len(await bench.claim()) == 1
    assert (await gate_state(bench, "open")).in_flight == 1


async def test_a_quota_admits_its_number_until_its_end(bench: Bench) -> None:
    until_ms = bench.clock.now_ms() + 1000
    await bench.queue.set_gate(Gate(name="g", quota=Quota(left=3, until_ms=until_ms)))
    await bench.queue.enqueue(lane("g"), jobs(*"12345"))
    batch = await bench.batch()
    assert len(batch.jobs) == 3
    assert (await bench.batch()).next_ms == until_ms
    bench.clock.advance(1000)
    assert ids(await bench.claim()) == ["4", "5"]


async def test_a_refund_goes_to_its_own_quota(bench: Bench) -> None:
    quota = Quota(left=2, until_ms=bench.clock.now_ms() + 10_000)
    await bench.queue.set_gate(Gate(name="g", quota=quota))
    await bench.queue.enqueue(lane("g"), jobs("1", "2", "3"))
    first, second = await bench.claim()
    await bench.settle(Release(), first)
    assert (await gate_state(bench, "g")).capacity == 1
    await bench.queue.set_gate(Gate(name="g", quota=quota))
    await bench.settle(Release(), second)
    assert (await gate_state(bench, "g")).capacity == 2


@pytest.mark.parametrize(
    ("verdict", "room"),
    [
        (Release(), 2),
        (Cancel(cause="c"), 2),
        (Defer(at_ms=1, cause="c", untried=True), 2),
        (Defer(at_ms=1, cause="c"), 1),
        (Done(), 1),
        (Retry(cause="c"), 1),
    ],
)
async def test_an_untried_job_is_refunded_to_the_rate(bench: Bench, verdict: Verdict, room: int) -> None:
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=1, per_ms=1000, burst=3)))
    await bench.queue.enqueue(lane("g"), jobs("1", "2"))
    first, _ = await bench.claim()
    assert (await gate_state(bench, "g")).capacity == 1
    await bench.settle(verdict, first)
    assert (await gate_state(bench, "g")).capacity == room


async def test_a_paused_gate_admits_nothing_until_its_end_or_resume(bench: Bench) -> None:
    await bench.queue.enqueue(lane("g"), jobs("1", "2", "3"))
    await bench.queue.pause_gate("g", bench.clock.now_ms() + 500)
    batch = await bench.batch()
    assert (batch.jobs, batch.next_ms) == ([], bench.clock.now_ms() + 500)
    bench.clock.advance(500)
    assert ids(await bench.claim(1)) == ["1"]
    await bench.queue.pause_gate("g", None)
    bench.clock.advance(10)
    assert await bench.claim() == []
    await bench.queue.resume_gate("g")
    assert ids(await bench.claim()) == ["2", "3"]


async def test_a_faster_rate_ignores_the_use_of_the_slower_one(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=1, per_ms=3_600_000)))
    await bench.queue.enqueue(lane("g"), jobs(*map(str, range(50))))
    assert len(await bench.claim()) == 1
    assert await bench.claim() == []
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=100, per_ms=1000, burst=1)))
    bench.clock.advance(10)
    assert len(await bench.claim()) == 1


async def test_freed_capacity_is_never_lost(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="wide", concurrency=3))
    await bench.queue.set_gate(Gate(name="shut", concurrency=0))
    for n in range(3):
        await bench.queue.enqueue(lane("wide", name=f"holder{n}"), jobs(f"holder{n}"))
    holders = await bench.claim()
    for n in range(3):
        await bench.queue.enqueue(lane("wide", "shut", name=f"stuck{n}"), jobs(f"stuck{n}"))
    for n in range(5):
        await bench.queue.enqueue(lane("wide", name=f"late{n}"), jobs(f"late{n}"))
    assert await bench.claim() == []
    await bench.settle(Done(), *holders)
    # The first lanes that "wide" wakes are held by other gates; the capacity goes to the next lanes.
    got = []
    while (batch := await bench.batch()).next_ms == bench.clock.now_ms():
        got += ids(batch.jobs)
    got += ids(batch.jobs)
    assert len(got) == 3
    assert all(name.startswith("late") for name in got)


async def test_capacity_freed_by_a_settle_is_used_in_the_same_call(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="g", concurrency=1))
    await bench.queue.enqueue(lane("g"), jobs(*"123"))
    [job] = await bench.claim()
    order = [job.id]
    while True:
        settled = await bench.queue.settle("w", [(job, Done())], want=10)
        if not settled.batch.jobs:
            break
        [job] = settled.batch.jobs
        order.append(job.id)
    assert order == ["1", "2", "3"]


async def test_tokens_only_increase_from_claim_to_claim(bench: Bench) -> None:
    await bench.queue.enqueue(lane("g"), jobs(*map(str, range(20))))
    tokens: list[int] = []
    for _ in range(30):
        batch = await bench.claim(7)
        [token] = {job.token for job in batch}
        tokens.append(token)
        await bench.settle(Release(), *batch)
    assert all(earlier < later for earlier, later in pairwise(tokens))
