"""Caps hold on the queue for every worker, spread over the working hours, and after a queue loss."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import sqlalchemy as sa

from postroad.delivery.job import job_id, lane_of
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.gates.controller import GateController, count_corrected
from postroad.gates.name import GateName, Receiver
from postroad.queue import Done, Gate, Job, Lane, Queue
from postroad.settings import Settings
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.warmup import WarmupDayRow
from postroad.warmup.caps import WarmupCaps, pace_ms
from postroad.warmup.day import close_day, set_cap
from postroad.warmup.decide import Move
from postroad.warmup.identity import identities_by_sender, of_sender
from postroad.warmup.plan import plan_for
from tests.kit.clock import FakeClock
from tests.store.rows import add_campaign, add_recipient, add_touch
from tests.warmup.conftest import NEWS, OFFERS, SETTINGS, Load, Mail

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
MORNING = datetime(2026, 5, 4, 6, tzinfo=UTC)  # 08:00 in Berlin
GOOGLE = str(GateName.warmup("google", NEWS))
_ids = count(1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(int(MORNING.timestamp() * 1000))


@pytest.fixture
def settings(load: Load) -> Settings:
    return load(SETTINGS)


class Caps:
    """The controller of one queue's gates, with warmup as its only source."""

    def __init__(self, settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
        self._gates = GateController(
            engine, queue, [WarmupCaps(settings, engine=engine, queue=queue.name, clock=clock)]
        )

    async def turn(self) -> int:
        """Set the gates. Returns the number of corrected gates."""
        return count_corrected(await self._gates.apply())


def keeper(settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock) -> Caps:
    return Caps(settings, engine, queue, clock)


def lane(settings: Settings, sender: str = NEWS, provider: str = "google") -> Lane:
    warmup = identities_by_sender(settings)[sender]
    return lane_of(
        sender=sender, receiver=Receiver(provider), campaign="spring", route="relay", job_class="bulk", warmup=warmup
    )


async def fill(queue: Queue, into: Lane, jobs: int = 300) -> None:
    await queue.enqueue(into, [Job(id=job_id(next(_ids)), payload=b"") for _ in range(jobs)])


async def send(queue: Queue, worker: str = "w") -> int:
    """Claim and finish all jobs that may go now. Returns their number."""
    jobs = (await queue.claim(worker, want=100, lease_ms=60_000, nonce=f"{next(_ids)}")).jobs
    await queue.settle(worker, [(job, Done()) for job in jobs])
    return len(jobs)


async def send_until(queue: Queue, clock: FakeClock, end_ms: int) -> int:
    """Send each job as soon as its gates allow it, until a time. Returns the number of jobs."""
    sent = 0
    while clock.now_ms() < end_ms:
        sent += await send(queue)
        waking = [s.next_check_ms for s in await queue.gates() if s.parked_lanes and s.next_check_ms is not None]
        clock.advance(max(min([*waking, end_ms]) - clock.now_ms(), 1))
    return sent


async def gate(queue: Queue, name: str = GOOGLE) -> Gate:
    return next((state.gate for state in await queue.gates() if state.gate.name == name), Gate(name=name))


async def test_a_new_sender_sends_fifty_messages_a_day_one_at_a_time(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    await fill(queue, lane(settings))
    caps = keeper(settings, engine, queue, clock)
    assert await caps.turn() > 1
    assert await send(queue) == 1
    assert await send(queue, "another worker") == 0
    first_hour = await send_until(queue, clock, clock.now_ms() + HOUR_MS)
    assert first_hour <= 5
    assert await caps.turn() == 0  # a used quota is no reason to set the gate again
    assert 1 + first_hour + await send_until(queue, clock, clock.now_ms() + 24 * HOUR_MS) == 50


async def test_nothing_leaves_outside_the_hours(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    caps = keeper(settings, engine, queue, clock)
    await fill(queue, lane(settings))
    clock.advance(-MINUTE_MS)
    await caps.turn()
    assert await send(queue) == 0
    clock.advance(MINUTE_MS)
    await caps.turn()
    assert await send(queue) == 1
    clock.advance(12 * HOUR_MS)
    await caps.turn()
    assert await send(queue) == 0
    clock.advance(12 * HOUR_MS - 1)
    await caps.turn()
    assert await send(queue) == 0
    clock.advance(1)
    await caps.turn()
    assert await send(queue) == 1


async def test_caps_hold_while_no_worker_runs(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    await fill(queue, lane(settings))
    await keeper(settings, engine, queue, clock).turn()
    assert await send_until(queue, clock, clock.now_ms() + 36 * HOUR_MS) <= 50


async def test_an_override_applies_to_all_workers_and_counts_sent_mail(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    await fill(queue, lane(settings))
    one, other = keeper(settings, engine, queue, clock), keeper(settings, engine, queue, clock)
    await one.turn()
    sent = await send_until(queue, clock, clock.now_ms() + 6 * HOUR_MS)
    assert sent > 20
    for identity in of_sender(settings, "news"):
        set_cap(engine, identity, "google", 30, by="ada", why="careful", now=clock.now())
    await other.turn()
    limited = await gate(queue)
    assert limited.rate is not None
    assert limited.rate.count == 30
    assert limited.quota is not None
    assert limited.quota.left == 30 - sent
    assert await one.turn() == 0
    assert sent + await send_until(queue, clock, clock.now_ms() + 6 * HOUR_MS) <= 30


async def test_a_lost_gate_is_restored_with_the_rest_of_its_quota(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock, mail: Mail
) -> None:
    caps = keeper(settings, engine, queue, clock)
    mail.accepted(clock.now(), 12)
    mail.came_to(clock.now(), TouchState.DEFERRED, 3, reply_code=451, blame="host")
    await caps.turn()
    await queue.set_gate(Gate(name=GOOGLE))
    assert await caps.turn() == 1
    quota = (await gate(queue)).quota
    assert quota is not None
    assert quota.left == 50 - 15


async def test_a_pause_shuts_the_gate_until_it_is_over(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock, mail: Mail
) -> None:
    caps = keeper(settings, engine, queue, clock)
    await fill(queue, lane(settings))
    yesterday = clock.now() - timedelta(days=1)
    mail.accepted(yesterday, 160)
    mail.came_to(yesterday, TouchState.DEAD, 40, reply_code=550, cause="sender refused", blame="sender")
    await caps.turn()
    for identity in of_sender(settings, "news"):
        assert [row.move for row in close_day(engine, identity, clock.now())] == [Move.PAUSE]
    await caps.turn()
    assert await send_until(queue, clock, clock.now_ms() + 24 * HOUR_MS) == 0
    await caps.turn()
    assert await send(queue) == 1
    rate = (await gate(queue)).rate
    assert rate is not None
    assert rate.count == 12


async def test_senders_of_one_domain_share_its_cap(
    load: Load, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    settings = load(SETTINGS + OFFERS)
    await keeper(settings, engine, queue, clock).turn()
    await fill(queue, lane(settings))
    await fill(queue, lane(settings, "offers@example.com"))
    assert 46 <= await send_until(queue, clock, clock.now_ms() + 12 * HOUR_MS) <= 50


async def test_gates_of_a_warm_sender_are_lifted(
    settings: Settings, load: Load, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    await keeper(settings, engine, queue, clock).turn()
    await fill(queue, lane(settings))
    warm = load(SETTINGS.partition("[senders.news.warmup]")[0])
    assert await keeper(warm, engine, queue, clock).turn() > 1
    assert await send(queue) == 100
    assert await keeper(warm, engine, queue, clock).turn() == 0


async def test_an_operators_change_of_a_gate_stays(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    await queue.set_gate(Gate(name=GOOGLE, concurrency=3))
    await queue.pause_gate(GOOGLE, clock.now_ms() + HOUR_MS)
    await keeper(settings, engine, queue, clock).turn()
    left = await gate(queue)
    assert (left.concurrency, left.paused_until_ms) == (3, clock.now_ms() + HOUR_MS)
    assert left.quota is not None


async def test_only_jobs_of_a_warming_sender_pass_its_warmup_gates(
    load: Load, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    settings = load(SETTINGS + OFFERS)
    for sender, gates in (
        (NEWS, {GOOGLE, str(GateName.warmup("google", "example.com"))}),
        ("warm@example.com", set()),
    ):
        with write(engine) as connection:
            campaign, (step,) = add_campaign(connection, name=f"of {sender}")
            connection.execute(sa.text("UPDATE sender SET address = :address"), {"address": sender})
            recipient = add_recipient(connection, f"r{next(_ids)}@gmail.com")
            add_touch(connection, campaign, step, TouchState.PLANNED, due_at=clock.now(), recipient_id=recipient)
        await submit_due(
            engine,
            queue,
            f"of {sender}",
            SubmitOptions(expire_ms=HOUR_MS, warming=identities_by_sender(settings)),
            now=clock.now(),
            cursor=0,
            limit=10,
        )
        [job] = (await queue.claim("w", want=10, lease_ms=60_000, nonce=f"{next(_ids)}")).jobs
        in_flight = {state.gate.name for state in await queue.gates() if state.in_flight}
        assert {name for name in in_flight if name.startswith("warmup:")} == gates
        await queue.settle("w", [(job, Done())])


@pytest.mark.parametrize("provider", ["mx.rare.example", "other"])
def test_all_sites_of_no_known_provider_share_a_gate(provider: str) -> None:
    assert str(GateName.warmup(provider, NEWS)) == "warmup:other:news@example.com"


@pytest.mark.timeout(180)
async def test_sixty_days_with_an_incident(
    load: Load, engine: sa.Engine, queue: Queue, clock: FakeClock, mail: Mail
) -> None:
    """Ledger, decisions and queue together: some days have no decision, some days two, and one list is bad."""
    settings = load(SETTINGS + "first = 20\nceiling = 60\n")
    [identity, _domain] = of_sender(settings, "news")
    plan = plan_for(identity.warmup, "google")
    caps = keeper(settings, engine, queue, clock)
    into = lane(settings)
    moves: list[str] = []
    sent_by_day: list[int] = []
    rows: list[WarmupDayRow] = []
    for day, planned in zip(range(60), plan.caps(), strict=False):
        if day % 9 != 4:
            rows = [row for each in of_sender(settings, "news") for row in close_day(engine, each, clock.now())]
            if day % 7 == 3:
                assert [row.cap for row in close_day(engine, identity, clock.now())] == [row.cap for row in rows[:1]]
            moves += [row.move for row in rows[:1]]
        await fill(queue, into, 70)
        began = clock.now()
        sent = 0
        for _ in range(12):
            await caps.turn()  # each hour has its own rate
            sent += await send_until(queue, clock, clock.now_ms() + HOUR_MS)
        assert sent <= planned
        refused = sent * 3 // 10 if 20 <= day <= 22 else 0
        mail.accepted(began, sent - refused)
        mail.came_to(began, TouchState.DEAD, refused, reply_code=550, cause="sender refused", blame="sender")
        sent_by_day.append(sent)
        clock.advance(int((began + timedelta(days=1) - clock.now()).total_seconds() * 1000))
        await queue.cancel_group("spring", "the day is over")
    assert moves.count(Move.PAUSE) == 1
    paused = sent_by_day.index(0)
    assert 21 <= paused <= 25
    assert sent_by_day[paused + 1] <= 60 / 4
    assert max(sent_by_day) >= 58
    assert sent_by_day[-1] >= 58


@pytest.mark.parametrize("name", [GOOGLE, str(GateName.warmup("other", "example.com"))])
def test_hourly_rates_differ_and_average_to_the_even_rate(settings: Settings, name: str) -> None:
    identity = of_sender(settings, "news")[0]
    hours = [MORNING + timedelta(hours=n) for n in range(12)]
    paces = [pace_ms(name, identity, hour) for hour in hours]
    assert paces == [pace_ms(name, identity, hour + timedelta(minutes=59)) for hour in hours]
    assert len(set(paces)) > 10
    even_ms = 12 * HOUR_MS
    assert all(0.8 < pace / even_ms < 1.25 for pace in paces)
    assert sum(HOUR_MS / pace for pace in paces) == pytest.approx(1.0, abs=1e-6)
    assert paces != [pace_ms(name, identity, hour + timedelta(days=1)) for hour in hours]


async def test_a_new_hourly_rate_keeps_the_rest_of_the_quota(
    settings: Settings, engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    caps = keeper(settings, engine, queue, clock)
    await fill(queue, lane(settings))
    await caps.turn()
    first = await gate(queue)
    assert await send(queue) == 1
    clock.advance(HOUR_MS)
    assert await caps.turn() == 0
    second = await gate(queue)
    assert first.rate is not None
    assert second.rate is not None
    assert second.rate.per_ms != first.rate.per_ms
    assert second.rate.count == first.rate.count == 50
    assert second.quota is not None
    assert second.quota.left == 49
