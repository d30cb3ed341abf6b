from __future__ import annotations

from random import Random

import pytest

from postroad.errors import StateError
from postroad.queue import (
    Cancel,
    Dead,
    Defer,
    Done,
    JobState,
    Lane,
    Queue,
    QueueOptions,
    Reaped,
    Release,
    Retry,
    RetryPolicy,
    Uncertain,
    Verdict,
)
from tests.conftest import RedisServer
from tests.kit.clock import FakeClock
from tests.queue.conftest import Bench, ids, jobs

LANE = Lane(name="a", gates=("g",))


async def test_a_repeated_nonce_returns_the_same_batch(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", "2", "3", "4"))
    first = await bench.queue.claim("w", want=3, lease_ms=1000, nonce="x")
    again = await bench.queue.claim("w", want=3, lease_ms=1000, nonce="x")
    assert again.jobs == first.jobs
    assert ids(await bench.claim(worker="other")) == ["4"]


async def test_a_repeated_nonce_returns_the_same_claim_ordinals(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    await bench.settle(Release(), *await bench.claim())
    first = await bench.queue.claim("w", want=3, lease_ms=1000, nonce="x")
    again = await bench.queue.claim("w", want=3, lease_ms=1000, nonce="x")
    assert [job.claim for job in first.jobs] == [job.claim for job in again.jobs] == [2]


async def test_a_claim_lists_the_last_eight_claims_without_the_act(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", payload=b"stays whole"))
    ended: list[int] = []
    for _ in range(10):
        [job] = await bench.claim()
        assert (job.closed, job.claim, job.payload) == (tuple(ended[-8:]), len(ended) + 1, b"stays whole")
        await bench.settle(Release(), job)
        ended.append(job.token)
    [job] = await bench.claim(lease_ms=1)
    bench.clock.advance(1)
    [again] = await bench.claim()
    assert again.closed == (*ended[-7:], job.token)


async def test_a_repeated_nonce_returns_no_settled_job(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", "2", "3"))
    one, two, three = (await bench.queue.claim("w", want=3, lease_ms=1000, nonce="x")).jobs
    await bench.queue.settle("other", [(one, Done()), (two, Release())])
    assert ids(await bench.claim(worker="other")) == ["2"]
    assert (await bench.queue.claim("w", want=3, lease_ms=1000, nonce="x")).jobs == [three]


async def test_a_repeated_settle_is_idempotent(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs(*"12345"))
    one, two = await bench.claim(2)
    await bench.queue.settle("other", [(two, Done())])
    verdicts: list[tuple] = [(one, Done()), (two, Done())]  # type: ignore[type-arg]
    first = await bench.queue.settle("w", verdicts, want=2, nonce="x")
    again = await bench.queue.settle("w", verdicts, want=2, nonce="x")
    assert first == again
    assert first.stale == ["2"]
    assert ids(first.batch.jobs) == ["3", "4"]
    assert await bench.kinds() == ["done", "done"]


async def test_a_stale_settle_changes_nothing(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    [old] = await bench.claim(lease_ms=1000)
    bench.clock.advance(1000)
    [new] = await bench.claim(worker="other")
    assert new.token > old.token
    verdicts: list[Verdict] = [Done(), Retry(cause="c"), Dead(cause="c"), Release(), Cancel(cause="c")]
    for verdict in verdicts:
        assert await bench.settle(verdict, old) == ["1"]
    assert await bench.queue.mark([old]) == [False]
    assert await bench.queue.extend([old], 1000) == [False]
    assert await bench.queue.states(["1"]) == [JobState.IN_FLIGHT]
    assert await bench.settle(Done(), new) == []
    assert await bench.kinds() == ["released", "done"]


async def test_an_expired_unmarked_lease_releases_its_job_to_the_head(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", "2", "3"))
    await bench.claim(2, lease_ms=1000)
    bench.clock.advance(999)
    assert (await bench.queue.reap()).released == 0
    bench.clock.advance(1)
    assert (await bench.queue.reap()).released == 2
    assert [(job.id, job.attempt, job.claim) for job in await bench.claim()] == [
        ("1", 1, 2),
        ("2", 1, 2),
        ("3", 1, 1),
    ]


async def test_an_expired_marked_lease_makes_its_job_uncertain(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    [job] = await bench.claim(lease_ms=1000)
    assert await bench.queue.mark([job]) == [True]
    bench.clock.advance(1000)
    assert await bench.claim() == []
    [held] = await bench.queue.uncertain()
    assert (held.id, held.token, held.lane, held.worker) == ("1", job.token, "a", "w")
    assert (await bench.queue.enqueue(LANE, jobs("1"))).known == 1
    assert await bench.kinds() == ["uncertain"]


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Done(), JobState.REMEMBERED),
        (Retry(cause="c"), JobState.SCHEDULED),
        (Release(), JobState.QUEUED),
        (Dead(cause="c"), JobState.DEAD),
        (Uncertain(cause="c"), JobState.UNCERTAIN),
    ],
)
async def test_a_late_worker_settles_its_uncertain_job(bench: Bench, verdict: Verdict, state: JobState) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    [job] = await bench.claim(lease_ms=1000)
    await bench.queue.mark([job])
    bench.clock.advance(1000)
    await bench.queue.reap()
    assert await bench.settle(verdict, job) == []
    assert await bench.queue.states(["1"]) == [state]


async def test_settling_an_uncertain_job_as_uncertain_changes_nothing(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    [job] = await bench.claim()
    for _ in range(2):
        assert await bench.settle(Uncertain(cause="lost"), job) == []
        bench.clock.advance(1)
    assert (await bench.queue.uncertain())[0].since_ms == bench.clock.now_ms() - 2
    assert await bench.kinds() == ["uncertain"]


async def test_an_uncertain_job_is_resolved_once(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", "2"))
    await bench.settle(Uncertain(cause="lost", note=b"n"), *await bench.claim())
    await bench.queue.resolve("1", Done(note=b"a bounce proves it"))
    await bench.queue.resolve("2", Release())
    with pytest.raises(StateError, match="not uncertain"):
        await bench.queue.resolve("1", Done())
    assert [(job.id, job.attempt, job.claim) for job in await bench.claim()] == [("2", 1, 2)]
    assert await bench.kinds() == ["uncertain", "uncertain", "done", "released"]


async def test_an_extended_lease_stays_valid(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    [job] = await bench.claim(lease_ms=1000)
    bench.clock.advance(900)
    assert await bench.queue.extend([job], 1000) == [True]
    bench.clock.advance(900)
    assert await bench.claim() == []
    assert await bench.settle(Done(), job) == []


async def test_claims_count_earlier_claims_without_the_act(bench: Bench) -> None:
    now_ms = bench.clock.now_ms
    await bench.queue.enqueue(LANE, jobs("1"))
    claims: list[int] = []
    for verdict in (Retry(cause="c"), Defer(at_ms=now_ms() + 1, cause="c"), Release(), None):
        [job] = await bench.claim(lease_ms=1000)
        claims.append(job.claim)
        if verdict is None:
            bench.clock.advance(1000)
        else:
            await bench.settle(verdict, job)
            bench.clock.advance(10_000)
    [job] = await bench.claim(lease_ms=1000)
    await bench.queue.extend([job], 1000)
    await bench.queue.mark([job])
    assert [*claims, job.claim] == [1, 2, 3, 4, 5]
    assert job.attempt == 2


async def test_retries_back_off_and_end_as_a_dead_letter(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1", payload=b"the payload"))
    for delay_ms in (5_000, 10_000):
        [job] = await bench.claim()
        await bench.settle(Retry(cause="connect", error="refused"), job)
        bench.clock.advance(delay_ms - 1)
        assert await bench.claim() == []
        bench.clock.advance(1)
    [job] = await bench.claim()
    assert job.attempt == 3
    await bench.settle(Retry(cause="connect", error="refused", note=b"n"), job)
    [letter], cursor = await bench.queue.dead_letters(count=10)
    assert cursor is None
    assert (letter.id, letter.attempt, letter.cause, letter.error) == ("1", 3, "connect", "refused")
    assert (letter.lane, letter.payload, letter.at_ms) == ("a", b"the payload", bench.clock.now_ms())
    events = await bench.queue.read_events("g", "c", count=10, block_ms=0)
    assert [(event.kind, event.attempt, event.cause) for event in events] == [
        ("retry", 1, "connect"),
        ("retry", 2, "connect"),
        ("dead", 3, "connect"),
    ]
    assert events[0].next_ms == events[0].at_ms + 5_000
    assert events[2].note == b"n"


async def test_dead_letters_are_replayed_or_dropped_by_id_or_cause(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs(*"123456"))
    for job in await bench.claim():
        await bench.settle(Dead(cause="even" if int(job.id) % 2 == 0 else "odd"), job)
    assert await bench.queue.replay([]) == 0
    assert await bench.queue.replay(["1", "nobody"]) == 1
    assert await bench.queue.drop(cause="even") == 3
    assert await bench.queue.states(["1", "2", "3"]) == [JobState.QUEUED, JobState.REMEMBERED, JobState.DEAD]
    page, cursor = await bench.queue.dead_letters(count=1)
    assert (len(page), cursor) == (1, 1)
    assert await bench.queue.replay() == 2
    # A claim that ended as a dead letter counts as one without the act.
    replayed = [(job.id, job.attempt, job.claim) for job in await bench.claim()]
    assert replayed == [("1", 1, 2), ("3", 1, 2), ("5", 1, 2)]


async def test_replay_processes_more_letters_than_one_script_reads(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs(*map(str, range(1500))))
    for cause in ("a", "b"):
        await bench.settle(Dead(cause=cause), *await bench.claim(750))
    assert await bench.queue.replay(cause="b") == 750
    assert await bench.queue.drop() == 750


async def test_release_keeps_the_order_of_a_batch(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs(*"12345"))
    await bench.settle(Release(), *await bench.claim(3))
    assert ids(await bench.claim()) == list("12345")


async def test_the_last_delay_repeats_and_jitter_stays_in_its_bounds(redis_url: str) -> None:
    clock = FakeClock()
    policy = RetryPolicy(attempts=9, delays_ms=(1000, 2000), jitter=0.5)
    async with Queue.open(redis_url, "jitter", clock=clock, rng=Random(7), options=QueueOptions(retry=policy)) as queue:
        await queue.enqueue(LANE, jobs("1"))
        for expected_ms in (1000, 2000, 2000, 2000):
            [job] = (await queue.claim("w", want=1, lease_ms=9999, nonce=f"{clock.now_ms()}")).jobs
            await queue.settle("w", [(job, Retry(cause="c"))])
            events = await queue.read_events("g", "c", count=10, block_ms=0)
            delay_ms = events[-1].next_ms - clock.now_ms()
            assert expected_ms * 0.5 <= delay_ms <= expected_ms * 1.5
            assert delay_ms != expected_ms
            clock.advance(delay_ms)


async def test_an_unmarked_lease_from_before_a_restart_is_uncertain(own_redis: RedisServer, clock: FakeClock) -> None:
    async with Queue.open(own_redis.url, "q", clock=clock) as queue:
        await queue.enqueue(LANE, jobs("1", "2"))
        [before] = (await queue.claim("w", want=1, lease_ms=1000, nonce="1")).jobs
    own_redis.kill()
    own_redis.start()
    async with Queue.open(own_redis.url, "q", clock=clock) as queue:
        [after] = (await queue.claim("w", want=1, lease_ms=1000, nonce="2")).jobs
        assert (before.id, after.id) == ("1", "2")
        clock.advance(1000)
        assert await queue.reap() == Reaped(released=1, uncertain=1)
        assert await queue.states(["1", "2"]) == [JobState.UNCERTAIN, JobState.QUEUED]
        # Its worker knows the outcome.
        assert (await queue.settle("w", [(before, Release())])).stale == []
        assert await queue.states(["1"]) == [JobState.QUEUED]
        again = (await queue.claim("w", want=2, lease_ms=1000, nonce="3")).jobs
        clock.advance(1000)
        assert await queue.reap() == Reaped(released=2, uncertain=0), "they are of this life of the server"
        assert {job.id: job.closed for job in again} == {"1": (before.token,), "2": (after.token,)}
        assert await queue.audit() == []
