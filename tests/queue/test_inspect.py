"""Inspection of one job: its state, its history, and what holds it."""

from __future__ import annotations

import pytest

from postroad.queue import (
    Dead,
    Done,
    Explanation,
    Gate,
    Lane,
    Queue,
    QueueOptions,
    Quota,
    Rate,
    Retention,
    Retry,
    Uncertain,
)
from tests.kit.clock import FakeClock
from tests.queue.conftest import Bench, jobs

LANE = Lane(name="ada google spring", gates=("campaign", "sender"), group="spring")
START = "2026-09-21 14:13:20 UTC"


async def test_a_job_is_found_with_its_attempts_and_history(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", payload=b"\xffpay"))
    await bench.settle(Retry(cause="connect", error="refused", at_ms=1), *await bench.claim())
    bench.clock.advance(1000)
    found = await bench.queue.find("1")
    assert (found.lane, found.payload, found.attempts, found.claims) == (LANE, b"\xffpay", 1, 1)
    assert [(event.kind, event.cause, event.error) for event in found.history] == [("retry", "connect", "refused")]
    await bench.settle(Done(), *await bench.claim())
    await bench.queue.acknowledge("g", await bench.queue.read_events("g", "c", count=9, block_ms=0), forget=["1"])
    found = await bench.queue.find("1")
    assert found.state is None
    assert [(event.kind, event.attempt) for event in found.history] == [("done", 2)]
    assert (await bench.queue.explain("1")).words == ["It ended as done at 2026-09-21 14:13:21 UTC, attempt 2."]


async def test_history_keeps_exactly_the_newest(redis_url: str, clock: FakeClock) -> None:
    async with Queue.open(
        redis_url, "history", clock=clock, options=QueueOptions(retention=Retention(done=5, failed=3))
    ) as queue:
        names = [f"{n:03}" for n in range(100)]
        await queue.enqueue(LANE, jobs(*names))
        await queue.enqueue(LANE, jobs(*(f"late{n}" for n in range(4)), expires_ms=clock.now_ms() + 1))
        batch = (await queue.claim("w", want=100, lease_ms=1000, nonce="1")).jobs
        clock.advance(1)
        for start in range(0, 100, 5):
            some = batch[start : start + 5]
            await queue.settle("w", [(job, Done() if job.id < "050" else Dead(cause="c")) for job in some])
        await queue.claim("w", want=100, lease_ms=1000, nonce="2")
        await queue.acknowledge("g", await queue.read_events("g", "c", count=1000, block_ms=0))

        async def kept(ids: list[str]) -> list[str]:
            return [name for name in ids if (await queue.find(name)).history]

        assert await kept(names[:50]) == names[45:50]
        assert await kept(names[50:] + [f"late{n}" for n in range(4)]) == ["late1", "late2", "late3"]
        # The history's limit does not apply to dead letters.
        assert (await queue.stats()).dead == 50
    async with Queue.open(
        redis_url, "history", clock=clock, options=QueueOptions(retention=Retention(done=0, failed=1))
    ) as queue:
        await queue.enqueue(LANE, jobs("last"))
        [job] = (await queue.claim("w", want=1, lease_ms=1000, nonce="3")).jobs
        await queue.settle("w", [(job, Done())])
        await queue.acknowledge("g", await queue.read_events("g", "c", count=1000, block_ms=0))
        assert not (await queue.find("049")).history
        assert not (await queue.find("last")).history


async def explained(bench: Bench, name: str = "1") -> Explanation:
    return await bench.queue.explain(name)


async def test_an_unknown_job_is_explained_as_unknown(bench: Bench) -> None:
    said = await explained(bench)
    assert said.state is None
    assert said.words == ["The queue does not know this id: it never had it, or forgot it after it ended."]


async def test_a_ready_job_waits_only_for_its_turn(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("0", "1"))
    bench.clock.advance(5000)
    said = await explained(bench)
    assert (said.held_by, said.ahead, said.since_ms) == (None, 1, bench.clock.now_ms() - 5000)
    assert said.words[0] == f"Queued in lane ada google spring, after 1 other job. It could have gone since {START}."
    assert said.not_before_ms == bench.clock.now_ms()


@pytest.mark.parametrize("parked", [True, False])
async def test_a_rate_is_explained_with_the_earliest_start(bench: Bench, parked: bool) -> None:
    await bench.queue.set_gate(Gate(name="sender", rate=Rate(count=30, per_ms=3_600_000)))
    await bench.queue.enqueue(LANE, jobs("gone", "0", "1"))
    await bench.claim(10 if parked else 1, lease_ms=10**9)
    said = await explained(bench)
    assert said.held_by == "gate sender"
    assert said.words[0] == (
        "Held by gate sender: its rate is 30 in 3600 s, 1 at once; the next one goes at 2026-09-21 14:15:20 UTC."
    )
    assert said.not_before_ms == bench.clock.now_ms() + 240_000
    # The prediction is correct.
    bench.clock.advance(120_000)
    assert [job.id for job in await bench.claim(lease_ms=10**9)] == ["0"]
    bench.clock.advance(119_999)
    assert await bench.claim() == []
    bench.clock.advance(1)
    assert [job.id for job in await bench.claim()] == ["1"]


async def test_a_pause_is_explained_with_its_start_and_end(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    await bench.queue.pause_gate("campaign", None)
    await bench.queue.pause_gate("sender", bench.clock.now_ms() + 60_000)
    bench.clock.advance(1000)
    await bench.queue.pause_gate("sender", bench.clock.now_ms() + 60_000)
    said = await explained(bench)
    assert said.words[:2] == [
        f"Held by gate campaign: it is paused since {START}, until it is resumed.",
        f"Held by gate sender: it is paused since {START}, until 2026-09-21 14:14:21 UTC.",
    ]
    assert said.not_before_ms is None
    await bench.queue.resume_gate("campaign")
    assert (await explained(bench)).not_before_ms == bench.clock.now_ms() + 60_000


async def test_a_used_up_quota_and_concurrency_are_explained(bench: Bench) -> None:
    until_ms = bench.clock.now_ms() + 3_600_000
    await bench.queue.set_gate(Gate(name="campaign", quota=Quota(left=1, until_ms=until_ms)))
    await bench.queue.set_gate(Gate(name="sender", concurrency=1))
    await bench.queue.enqueue(LANE, jobs("gone", "1"))
    held = await bench.claim()
    said = await explained(bench)
    assert said.words[:2] == [
        "Held by gate campaign: its quota is used up until 2026-09-21 15:13:20 UTC.",
        "Held by gate sender: 1 in flight of 1 at once; it opens when one of them ends.",
    ]
    await bench.settle(Done(), *held)
    assert (await explained(bench)).not_before_ms == until_ms


async def test_a_paused_or_cancelled_group_is_explained(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", "2"))
    [held] = await bench.claim(1)
    await bench.queue.pause_group("spring")
    said = await explained(bench, "2")
    assert said.held_by == "group spring"
    assert said.words[0] == f"Held: group spring is paused since {START}, until it is resumed."
    await bench.queue.cancel_group("spring", "no longer wanted")
    assert (await explained(bench, held.id)).words[-1] == (
        "Its group was cancelled (no longer wanted): it ends when it returns to its lane."
    )


async def test_every_other_state_is_explained(bench: Bench) -> None:
    later_ms = bench.clock.now_ms() + 60_000
    await bench.queue.enqueue(LANE, jobs("flying", "unsure", "dead", "again"))
    await bench.queue.enqueue(LANE, jobs("later", due_ms=later_ms, expires_ms=later_ms + 60_000))
    flying, unsure, dead, again = await bench.claim(worker="host-1")
    await bench.queue.mark([flying])
    await bench.settle(Uncertain(cause="c"), unsure)
    await bench.settle(Dead(cause="user unknown", error="550 5.1.1"), dead)
    await bench.settle(Retry(cause="connect", at_ms=later_ms), again)
    words = {name: (await explained(bench, name)).words for name in ("flying", "unsure", "dead", "later", "again")}
    begun = "worker host-1 had begun the act and its outcome is not known"
    assert words == {
        "flying": [
            "In flight: worker host-1 holds it until 2026-09-21 14:14:20 UTC, attempt 1, and has begun the act.",
        ],
        "unsure": [
            f"Uncertain since {START}: {begun}. It is held until it is resolved.",
        ],
        "dead": [f"A dead letter since {START}, after 1 attempt: user unknown (550 5.1.1)."],
        "later": [
            "Scheduled: due at 2026-09-21 14:14:20 UTC. Then it goes to the end of lane ada google spring.",
            "It expires at 2026-09-21 14:15:20 UTC.",
        ],
        "again": [
            "Scheduled: due at 2026-09-21 14:14:20 UTC. Then it goes to the end of lane ada google spring.",
            f"It was put off at {START} after attempt 1: connect.",
        ],
    }
