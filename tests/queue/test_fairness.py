from __future__ import annotations

from collections import Counter

import pytest

from postroad.queue import Done, Gate, JobClass, Lane, Rate
from tests.queue.conftest import Bench, jobs


async def served(bench: Bench, *, claims: int, want: int) -> Counter[str]:
    """Jobs served per lane."""
    count: Counter[str] = Counter()
    for _ in range(claims):
        batch = await bench.claim(want)
        count.update(job.lane for job in batch)
        await bench.settle(Done(), *batch)
    return count


@pytest.mark.parametrize("want", [1, 10, 100])
async def test_classes_share_by_weight_and_none_starves(bench: Bench, want: int) -> None:
    for job_class in JobClass:
        lane = Lane(name=job_class, gates=(), job_class=job_class)
        await bench.queue.enqueue(lane, jobs(*(f"{job_class}{i}" for i in range(1000))))
    count = await served(bench, claims=1300 // want, want=want)
    assert count["urgent"] == pytest.approx(800, abs=20)
    assert count["normal"] == pytest.approx(400, abs=20)
    assert count["bulk"] == pytest.approx(100, abs=20)


@pytest.mark.parametrize("want", [1, 50])
async def test_lanes_of_a_class_share_by_weight(bench: Bench, want: int) -> None:
    for name, weight in (("light", 1.0), ("heavy", 3.0)):
        await bench.queue.enqueue(Lane(name=name, gates=(), weight=weight), jobs(*(f"{name}{i}" for i in range(1000))))
    count = await served(bench, claims=400 // want, want=want)
    assert count["heavy"] / count["light"] == pytest.approx(3, rel=0.2)


async def test_an_urgent_job_does_not_wait_for_a_bulk_campaign(bench: Bench) -> None:
    bulk = Lane(name="bulk", gates=("g",), job_class=JobClass.BULK)
    await bench.queue.set_gate(Gate(name="g", rate=Rate(count=10, per_ms=1000, burst=1)))
    for n in range(30):
        one = Lane(name=f"bulk{n}", gates=("g",), job_class=JobClass.BULK)
        await bench.queue.enqueue(one, jobs(*(f"{n}.{i}" for i in range(20))))
    await bench.queue.enqueue(bulk, jobs(*(f"b{i}" for i in range(100))))
    assert len(await bench.claim()) == 1
    # Every bulk lane is parked on the gate now. The urgent one parks last, and still is first.
    urgent = Lane(name="urgent", gates=("g",), job_class=JobClass.URGENT)
    await bench.queue.enqueue(urgent, jobs("reset1", "reset2"))
    assert await bench.claim() == []
    got = []
    for _ in range(4):
        bench.clock.advance(100)
        got += [job.id for job in await bench.claim()]
    assert {"reset1", "reset2"} <= set(got[:3])


async def test_an_empty_lane_accumulates_no_credit(bench: Bench) -> None:
    for name in ("a", "b"):
        await bench.queue.enqueue(Lane(name=name, gates=()), jobs(f"{name}0"))
    await served(bench, claims=1, want=10)
    await bench.queue.enqueue(Lane(name="a", gates=()), jobs(*(f"a{i}" for i in range(1, 500))))
    await served(bench, claims=30, want=10)
    await bench.queue.enqueue(Lane(name="b", gates=()), jobs(*(f"b{i}" for i in range(1, 500))))
    count = await served(bench, claims=10, want=10)
    assert count["a"] == pytest.approx(50, abs=10)


async def test_every_lane_is_served_within_a_bounded_number_of_claims(bench: Bench) -> None:
    for n in range(300):
        await bench.queue.enqueue(Lane(name=f"{n}", gates=()), jobs(*(f"{n}.{i}" for i in range(40))))
    # No lane has a second visit of twenty jobs before every other has had its first.
    assert set(await served(bench, claims=120, want=50)) == {f"{n}" for n in range(300)}
