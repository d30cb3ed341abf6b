from __future__ import annotations

from postroad.queue import Defer, Done, JobState, Lane, Retention, Retry
from tests.queue.conftest import Bench, ids, jobs

LANE = Lane(name="a", gates=("g",))


async def test_the_same_id_twice_is_one_job(bench: Bench) -> None:
    first = await bench.queue.enqueue(LANE, jobs("1", "2", "1"))
    again = await bench.queue.enqueue(Lane(name="b", gates=()), jobs("2", "3", payload=b"other"))
    assert (first.accepted, first.known) == (2, 1)
    assert (again.accepted, again.known) == (1, 1)
    assert {job.id: job.payload for job in await bench.claim()} == {"1": b"p", "2": b"p", "3": b"other"}


async def test_a_lane_is_first_in_first_out(bench: Bench) -> None:
    wanted = [f"{n}" for n in range(250)]
    await bench.queue.enqueue(LANE, jobs(*wanted[:100]))
    await bench.queue.enqueue(LANE, jobs(*wanted[100:]))
    got = [name for _ in range(4) for name in ids(await bench.claim(70))]
    assert got == wanted


async def test_more_jobs_than_fit_one_script_are_enqueued(bench: Bench) -> None:
    assert (await bench.queue.enqueue(LANE, jobs(*map(str, range(2500))))).accepted == 2500
    big = jobs(*(f"big{n}" for n in range(5)), payload=bytes(1_500_000))
    assert (await bench.queue.enqueue(LANE, big)).accepted == 5
    assert (await bench.queue.stats()).queued == 2505


async def test_payload_is_any_bytes(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("é", payload=bytes(range(256))))
    [job] = await bench.claim()
    assert (job.id, job.payload, job.lane) == ("é", bytes(range(256)), "a")


async def test_an_ended_id_is_remembered_until_its_outcome_is_recorded(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    await bench.settle(Done(note=b"250"), *await bench.claim())
    # Independent of the number of jobs that ended since.
    await bench.queue.enqueue(LANE, jobs(*(f"x{n}" for n in range(1500))))
    await bench.settle(Done(), *await bench.claim(1000))
    assert (await bench.queue.enqueue(LANE, jobs("1"))).known == 1
    events = await bench.queue.read_events("g", "c", count=1, block_ms=0)
    await bench.queue.acknowledge("g", events, forget=["1"])
    assert await bench.queue.states(["1"]) == [None]
    assert (await bench.queue.enqueue(LANE, jobs("1"))).accepted == 1


async def test_a_remembered_id_is_forgotten_after_its_time(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    await bench.settle(Done(), *await bench.claim())
    bench.clock.advance(Retention().remember_ms - 1)
    await bench.claim()
    assert await bench.queue.states(["1"]) == [JobState.REMEMBERED]
    # Claims check once a second.
    bench.clock.advance(1000)
    await bench.claim()
    assert await bench.queue.states(["1"]) == [None]


async def test_a_scheduled_job_waits_for_its_due_time(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    await bench.queue.enqueue(LANE, jobs("later", due_ms=now_ms + 5000))
    await bench.queue.enqueue(LANE, jobs("sooner", due_ms=now_ms + 4000))
    await bench.queue.enqueue(LANE, jobs("now", due_ms=now_ms))
    batch = await bench.batch()
    assert ids(batch.jobs) == ["now"]
    assert batch.next_ms == now_ms + 4000
    bench.clock.advance(3999)
    assert await bench.claim() == []
    bench.clock.advance(1)
    assert ids(await bench.claim()) == ["sooner"]
    bench.clock.advance(1000)
    assert await bench.queue.promote() == 1
    assert ids(await bench.claim()) == ["later"]


async def test_an_expired_job_ends_instead_of_being_claimed(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    await bench.queue.enqueue(LANE, jobs("old", expires_ms=now_ms + 10))
    await bench.queue.enqueue(LANE, jobs("good", expires_ms=now_ms + 1000))
    bench.clock.advance(10)
    [job] = await bench.claim()
    assert (job.id, job.expires_ms) == ("good", now_ms + 1000)
    assert await bench.kinds() == ["expired"]
    assert await bench.queue.states(["old"]) == [JobState.REMEMBERED]


async def test_states_returns_the_state_of_every_job(bench: Bench) -> None:
    queue, now_ms = bench.queue, bench.clock.now_ms()
    await queue.enqueue(LANE, jobs("flying", "unsure", "dead", "gone"))
    flying, unsure, dead, gone = await bench.claim()
    await queue.mark([unsure])
    await queue.settle("w", [(gone, Done())])
    for _ in range(2):
        await bench.settle(Retry(cause="c", at_ms=now_ms), dead)
        [dead] = await bench.claim()
    await bench.settle(Retry(cause="c", at_ms=now_ms), dead)
    await queue.extend([flying], 200_000)
    bench.clock.advance(100_000)
    await queue.reap()
    await queue.enqueue(LANE, jobs("waiting", due_ms=bench.clock.now_ms() + 1))
    await queue.enqueue(LANE, jobs("queued"))
    names = ["queued", "waiting", "flying", "unsure", "dead", "gone", "nobody"]
    assert await queue.states(names) == [
        JobState.QUEUED,
        JobState.SCHEDULED,
        JobState.IN_FLIGHT,
        JobState.UNCERTAIN,
        JobState.DEAD,
        JobState.REMEMBERED,
        None,
    ]


async def test_cancel_ends_waiting_jobs_and_leaves_jobs_in_flight(bench: Bench) -> None:
    now_ms = bench.clock.now_ms()
    await bench.queue.enqueue(LANE, jobs("flying", "a", "b"))
    await bench.claim(1)
    await bench.queue.enqueue(LANE, jobs("later", due_ms=now_ms + 1))
    assert await bench.queue.cancel(["flying", "a", "later", "nobody"], "unsubscribed") == 2
    assert await bench.queue.audit() == []
    assert await bench.queue.cancel(["a"], "unsubscribed") == 0
    bench.clock.advance(1)
    assert ids(await bench.claim()) == ["b"]
    assert await bench.kinds() == ["cancelled", "cancelled"]


async def test_a_cancelled_id_can_be_reused_before_its_entry_is_removed(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    await bench.queue.cancel(["1"], "c")
    await bench.queue.acknowledge("g", await bench.queue.read_events("g", "c", count=9, block_ms=0), forget=["1"])
    assert (await bench.queue.enqueue(Lane(name="other", gates=()), jobs("1", payload=b"new"))).accepted == 1
    assert await bench.queue.audit() == []
    assert [(job.id, job.payload) for job in await bench.claim()] == [("1", b"new")]


async def test_a_deferred_job_uses_no_attempt(bench: Bench) -> None:
    await bench.queue.enqueue(LANE, jobs("1"))
    for n in range(5):
        [job] = await bench.claim()
        assert (job.attempt, job.claim) == (1, n + 1)
        await bench.settle(Defer(at_ms=bench.clock.now_ms() + 60_000, cause="4xx"), job)
        bench.clock.advance(60_000)


async def test_a_scheduled_job_can_be_rescheduled_or_cancelled(bench: Bench) -> None:
    due_ms = bench.clock.now_ms() + 10_000
    await bench.queue.enqueue(LANE, jobs("off", "forward", "now", "gone", due_ms=due_ms))
    await bench.queue.enqueue(LANE, jobs("queued"))
    assert await bench.queue.reschedule(["off", "queued", "nobody"], due_ms + 5_000) == [True, False, False]
    assert await bench.queue.reschedule(["forward"], due_ms - 5_000) == [True]
    assert await bench.queue.reschedule(["now"], 0) == [True]
    assert await bench.queue.cancel(["gone", "nobody"], "not wanted") == 1
    assert ids(await bench.claim(lease_ms=10**9)) == ["queued", "now"]
    seen = []
    for _ in range(3):
        bench.clock.advance(5_000)
        seen.append(ids(await bench.claim(lease_ms=10**9)))
    assert seen == [["forward"], [], ["off"]]
