"""Pausing, resuming and cancelling a group of lanes, such as a campaign."""

from __future__ import annotations

import pytest

from postroad.queue import Dead, Defer, Done, Gate, JobState, Lane, Release, Retry, Verdict
from postroad.queue.scripts import Scripts
from tests.queue.conftest import Bench, ids, jobs

SPRING = [Lane(name=f"spring {n}", gates=("g",), group="spring") for n in range(3)]
AUTUMN = Lane(name="autumn", gates=("g",), group="autumn")


async def fill(bench: Bench, count: int = 4) -> None:
    for n, lane in enumerate(SPRING):
        await bench.queue.enqueue(lane, jobs(*(f"s{n}.{i}" for i in range(count))))
    await bench.queue.enqueue(AUTUMN, jobs("a1", "a2"))


async def test_a_claim_skips_only_paused_groups(bench: Bench) -> None:
    await fill(bench)
    await bench.queue.pause_group("spring")
    batch = await bench.batch()
    assert ids(batch.jobs) == ["a1", "a2"]
    # No job is ready or scheduled, so the next claim is useful only when the leases end.
    assert batch.next_ms == bench.clock.now_ms() + 60_000
    assert (await bench.queue.stats()).paused_groups == ["spring"]
    assert await bench.queue.resume_group("spring")
    assert len(await bench.claim()) == 12
    assert not await bench.queue.resume_group("spring")


async def test_a_pause_applies_to_new_and_returning_jobs(bench: Bench) -> None:
    await fill(bench)
    held = [job for job in await bench.claim() if job.lane.startswith("spring")]
    await bench.queue.pause_group("spring")
    verdicts: list[Verdict] = [
        Release(),
        Retry(cause="c", at_ms=1),
        Defer(cause="c", at_ms=1),
        Defer(cause="c", at_ms=bench.clock.now_ms() + 5),
        Done(),
    ]
    for job, verdict in zip(held, verdicts, strict=False):
        await bench.settle(verdict, job)
    await bench.queue.enqueue(SPRING[0], jobs("late"))
    await bench.queue.enqueue(Lane(name="new", gates=("g",), group="spring"), jobs("newer"))
    bench.clock.advance(50_000)
    assert await bench.claim() == []
    await bench.queue.resume_group("spring")
    assert {"late", "newer", *ids(held[:4])} <= set(ids(await bench.claim()))


async def test_a_resumed_group_waits_for_its_gates_again(bench: Bench) -> None:
    await bench.queue.set_gate(Gate(name="g", concurrency=0))
    await fill(bench)
    assert await bench.claim() == []
    assert (await bench.queue.stats()).parked_lanes == 4
    await bench.queue.pause_group("spring")
    assert (await bench.queue.stats()).parked_lanes == 1
    await bench.queue.set_gate(Gate(name="g"))
    assert ids(await bench.claim()) == ["a1", "a2"]
    await bench.queue.set_gate(Gate(name="g", concurrency=1))
    await bench.queue.resume_group("spring")
    assert await bench.claim() == []
    await bench.queue.set_gate(Gate(name="g", concurrency=100))
    assert len(await bench.claim()) == 12


async def test_cancelling_a_group_ends_only_waiting_jobs(bench: Bench) -> None:
    await fill(bench)
    later_ms = bench.clock.now_ms() + 10_000
    await bench.queue.enqueue(SPRING[0], jobs("later", due_ms=later_ms))
    await bench.queue.enqueue(AUTUMN, jobs("a3", due_ms=later_ms))
    await bench.queue.pause_group("spring")
    assert await bench.queue.cancel_group("spring", "over") == 13
    stats = await bench.queue.stats()
    assert (stats.queued, stats.scheduled, stats.counters["cancelled"]) == (2, 1, 13)
    assert stats.paused_groups == []
    assert await bench.kinds() == ["cancelled"] * 13
    await bench.queue.enqueue(SPRING[0], jobs("fresh"))
    assert sorted(ids(await bench.claim())) == ["a1", "a2", "fresh"]


async def test_jobs_in_flight_of_a_cancelled_group_finish_or_end(bench: Bench) -> None:
    await bench.queue.enqueue(SPRING[0], jobs("done", "retry", "released", "lapsed", "dead", "deferred"))
    held = {job.id: job for job in await bench.claim()}
    assert await bench.queue.cancel_group("spring", "over") == 0
    bench.clock.advance(1)
    await bench.settle(Done(), held["done"])
    await bench.settle(Retry(cause="c", at_ms=1), held["retry"])
    await bench.settle(Release(), held["released"])
    await bench.settle(Dead(cause="c"), held["dead"])
    await bench.settle(Defer(cause="c", at_ms=bench.clock.now_ms() + 70_000), held["deferred"])
    ended = ["done", "retry", "released"]
    assert await bench.queue.states(ended) == [JobState.REMEMBERED] * 3
    bench.clock.advance(60_000)
    assert (await bench.queue.reap()).released == 1
    assert await bench.queue.states(["lapsed", "deferred"]) == [JobState.REMEMBERED, JobState.SCHEDULED]
    bench.clock.advance(60_000)
    await bench.queue.promote()
    assert await bench.queue.replay(["dead"]) == 1
    assert await bench.queue.states(["deferred", "dead"]) == [JobState.REMEMBERED] * 2
    assert await bench.claim() == []


async def test_claims_complete_a_cancellation_whose_caller_died(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(bench, count=1200)
    drain = Scripts.cancel_step
    calls = 0

    async def dies(scripts: Scripts, limit: int, after: int) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionResetError
        return await drain(scripts, limit, after)

    monkeypatch.setattr(Scripts, "cancel_step", dies)
    with pytest.raises(ConnectionResetError):
        await bench.queue.cancel_group("spring", "over")
    assert (await bench.queue.stats()).queued == 2602
    seen = []
    for _ in range(4):
        bench.clock.advance(1000)
        seen += ids(await bench.claim())
    assert seen == ["a1", "a2"]
    assert (await bench.queue.stats()).counters["cancelled"] == 3600


async def test_a_cancelled_id_can_be_reused_while_its_group_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.queue.enqueue(SPRING[0], jobs("1", "2"))
    await bench.queue.cancel(["1"], "c")
    await bench.queue.acknowledge("g", [], forget=["1"])

    async def nothing(scripts: Scripts, limit: int, after: int) -> list[int]:
        return [0, 0, 0, 0]

    with monkeypatch.context() as patch:
        patch.setattr(Scripts, "cancel_step", nothing)
        await bench.queue.cancel_group("spring", "over")
    assert (await bench.queue.enqueue(SPRING[0], jobs("1"))).accepted == 1
    assert ids(await bench.claim()) == ["1"]
    assert await bench.queue.states(["2"]) == [JobState.REMEMBERED]


async def test_an_idle_lane_is_deleted_and_recreated(bench: Bench) -> None:
    await fill(bench)
    await bench.settle(Done(), *await bench.claim())
    await bench.queue.enqueue(AUTUMN, jobs("stays", due_ms=bench.clock.now_ms() + 10**9))
    bench.clock.advance(3_600_000)
    await bench.claim()
    assert (await bench.queue.stats()).lanes == 1
    await bench.queue.enqueue(SPRING[1], jobs("again"))
    assert ids(await bench.claim()) == ["again"]


async def test_a_cancelled_lane_is_deleted_with_its_last_job(bench: Bench) -> None:
    await bench.queue.enqueue(SPRING[0], jobs("1", "2"))
    [held] = await bench.claim(1)
    await bench.queue.cancel_group("spring", "over")
    bench.clock.advance(3_600_000 * 2)
    await bench.queue.extend([held], 10_000_000)
    await bench.claim()
    assert (await bench.queue.stats()).lanes == 1
    await bench.settle(Done(), held)
    bench.clock.advance(3_600_000)
    await bench.claim()
    assert (await bench.queue.stats()).lanes == 0


async def test_lanes_without_a_group_form_no_group(bench: Bench) -> None:
    for call in (bench.queue.pause_group, bench.queue.resume_group):
        with pytest.raises(ValueError, match="no group"):
            await call("")
