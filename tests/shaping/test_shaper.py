"""What is heard becomes a row and a gate, once whoever hears it, and is undone when its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from postroad.clock import Clock, SystemClock
from postroad.delivery.outcome import Pause, of_reply
from postroad.errors import UnavailableError
from postroad.gates.controller import GateController
from postroad.gates.name import Receiver
from postroad.queue import FOREVER_MS, Gate, Job, Queue, Quota, Rate
from postroad.shaping.config import read_shaping
from postroad.shaping.gate_source import ShapingLimits
from postroad.shaping.limits import LimitScope
from postroad.shaping.shaper import Shaper, resume
from postroad.smtp.reply import Phase, Reply, parse_reply
from postroad.store.engine import open_engine, read
from postroad.store.shaping import ShapingChange, ShapingReply, newest_changes
from tests.conftest import RedisServer
from tests.delivery.queue_of_touches import lane
from tests.queue.conftest import HandClock

SENDER = "a@example.com"
GMAIL, YAHOO = (
    LimitScope(sender=SENDER, receiver=Receiver("google")),
    LimitScope(sender=SENDER, receiver=Receiver("yahoo")),
)
MINUTE_MS = 60_000


def said(text: str, phase: Phase = Phase.DOT) -> Reply:
    return parse_reply(phase, int(text[:3]), [text[4:]])


TSS04 = said("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume")
UNUSUAL = said("421 4.7.28 Gmail has detected an unusual rate of unsolicited mail.")
BUSY = said("451 4.7.500 Server busy. Please try again later.")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def queue(redis_url: str, clock: HandClock) -> AsyncIterator[Queue]:
    from postroad.queue.redis.client import connect

    async with Queue.open(redis_url, "shaping", clock=clock) as queue:
        yield queue
        assert await queue.audit() == []
    client = connect(redis_url)
    for key in await client.keys("pr:{shaping}:*"):
        await client.delete(key)
    await client.aclose()


def controller(
    engine: sa.Engine,
    queue: Queue,
    clock: Clock,
    shaped: Collection[str] = (),
    path: Path | None = None,
) -> GateController:
    return GateController(engine, queue, [], expiring=ShapingLimits(engine, read_shaping(path), shaped, clock))


def shaper(
    engine: sa.Engine,
    queue: Queue,
    clock: Clock,
    shaped: Collection[str] = (),
    path: Path | None = None,
    registry: CollectorRegistry | None = None,
) -> Shaper:
    gates = controller(engine, queue, clock, shaped, path)
    return Shaper(engine=engine, gates=gates, shaping=read_shaping(path), clock=clock, registry=registry)


async def gate(queue: Queue, name: str) -> Gate:
    return next((state.gate for state in await queue.gates() if state.gate.name == name), Gate(name=name))


def log(engine: sa.Engine) -> list[ShapingChange]:
    with read(engine) as connection:
        return newest_changes(connection, None, 100)


async def test_a_suspension_holds_for_all_workers_and_ends_by_itself(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    one = shaper(engine, queue, clock)
    one.refused(YAHOO, TSS04)
    await one.turn()
    assert (await gate(queue, YAHOO.gate)).paused_until_ms == clock.now_ms() + 120 * MINUTE_MS
    [change] = log(engine)
    assert (change.rule, change.sender, change.provider, change.suspended) == ("yahoo-deferral", SENDER, "yahoo", True)
    assert "[TSS04]" in change.reply
    assert change.restored_at is None
    clock.advance(120 * MINUTE_MS)
    await one.turn()
    [change] = log(engine)
    assert (change.restored_at, change.restored_by) == (clock.now(), "end")


async def test_a_slowed_gate_is_as_before_when_its_time_is_over_also_after_a_restart(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    first = shaper(engine, queue, clock)
    first.refused(GMAIL, BUSY)
    await first.turn()
    slowed = await gate(queue, GMAIL.gate)
    assert (slowed.rate, slowed.concurrency) == (Rate(count=1, per_ms=MINUTE_MS), 1)
    clock.advance(90 * MINUTE_MS)
    # Nobody who heard it is alive any more.
    await shaper(engine, queue, clock).turn()
    assert await gate(queue, GMAIL.gate) == Gate(name=GMAIL.gate)
    assert log(engine)[0].restored_at == clock.now()


async def test_a_limit_of_the_file_holds_where_mail_goes_straight_there(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    from postroad.delivery.job import lane_of

    google = lane_of(sender=SENDER, receiver=Receiver("google"), campaign="spring", route="direct", job_class="bulk")
    await queue.enqueue(google, [Job(id="1", payload=b"")])
    await queue.set_gate(Gate(name=GMAIL.gate, quota=Quota(left=7, until_ms=FOREVER_MS)))
    worker = shaper(engine, queue, clock, shaped={SENDER})
    await worker.turn()
    limited = await gate(queue, GMAIL.gate)
    assert (limited.rate, limited.concurrency) == (Rate(count=100, per_ms=1000, burst=5), 10)
    assert limited.quota == Quota(left=7, until_ms=FOREVER_MS)  # somebody else's
    assert (await gate(queue, "provider:google")).concurrency == 5
    worker.refused(GMAIL, BUSY)
    await worker.turn()
    assert (await gate(queue, GMAIL.gate)).concurrency == 1
    clock.advance(90 * MINUTE_MS)
    await worker.turn()
    assert await gate(queue, GMAIL.gate) == limited


async def test_replies_to_different_workers_count_together(engine: sa.Engine, queue: Queue, clock: HandClock) -> None:
    one, other = shaper(engine, queue, clock), shaper(engine, queue, clock)
    one.refused(GMAIL, UNUSUAL)
    await one.turn()
    assert [change.rule for change in log(engine)] == ["pace"]  # Not often enough for the rule; slower all the same.
    clock.advance(59 * MINUTE_MS)
    other.refused(GMAIL, UNUSUAL)
    await other.turn()
    assert "google-unusual-rate" in [change.rule for change in log(engine)]
    assert (await gate(queue, GMAIL.gate)).rate == Rate(count=10, per_ms=MINUTE_MS)


async def test_what_was_said_more_than_an_hour_ago_does_not_count(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    worker = shaper(engine, queue, clock)
    for _ in range(3):
        worker.refused(GMAIL, UNUSUAL)
        await worker.turn()
        clock.advance(60 * MINUTE_MS)
    assert {change.rule for change in log(engine)} == {"pace"}
    with read(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(ShapingReply)).scalar() == 1


async def test_workers_that_see_it_at_once_make_one_change_and_do_not_flap(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    workers = [shaper(engine, queue, clock) for _ in range(4)]
    for worker in workers:
        for _ in range(50):
            worker.refused(YAHOO, TSS04)
    await asyncio.gather(*(worker.turn() for worker in workers))
    assert len(log(engine)) == 1
    paused = await gate(queue, YAHOO.gate)
    clock.advance(MINUTE_MS)
    for worker in workers:
        worker.refused(YAHOO, TSS04)
    await asyncio.gather(*(worker.turn() for worker in workers))
    assert len(log(engine)) == 1
    assert await gate(queue, YAHOO.gate) == paused
    clock.advance(120 * MINUTE_MS)
    await asyncio.gather(*(worker.turn() for worker in workers))
    assert [change.restored_by for change in log(engine)] == ["end"]


async def test_a_rule_acts_again_after_its_time(engine: sa.Engine, queue: Queue, clock: HandClock) -> None:
    worker = shaper(engine, queue, clock)
    worker.refused(YAHOO, TSS04)
    await worker.turn()
    clock.advance(120 * MINUTE_MS + 1)
    worker.refused(YAHOO, TSS04)  # Heard before anybody has looked whether the first is over.
    await worker.turn()
    newest, first = log(engine)
    assert first.restored_at == newest.at
    assert newest.restored_at is None
    assert (await gate(queue, YAHOO.gate)).paused_until_ms == clock.now_ms() + 120 * MINUTE_MS


async def test_the_pace_grows_back_with_acceptances_and_then_nothing_is_limited(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    worker, other = shaper(engine, queue, clock), shaper(engine, queue, clock)
    worker.refused(YAHOO, said("421 Rate limit reached. Please try again later"))
    await worker.turn()
    assert (await gate(queue, YAHOO.gate)).concurrency == 5
    clock.advance(MINUTE_MS)
    await worker.turn()
    assert (await gate(queue, YAHOO.gate)).concurrency == 5  # Nothing was accepted.
    await other.turn()
    for _ in range(8):
        worker.accepted(YAHOO)
        other.accepted(YAHOO)
        await asyncio.gather(worker.turn(), other.turn())
        clock.advance(MINUTE_MS)
    await worker.turn()
    assert await gate(queue, YAHOO.gate) == Gate(name=YAHOO.gate)
    [change] = log(engine)
    assert (change.share, change.restored_by) == (1.0, "end")


async def test_broken_authentication_is_shown_and_paused_again_should_the_queue_forget(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    worker = shaper(engine, queue, clock)
    refusal = said("550 5.7.515 Access denied, sending domain example.com does not meet the required level")
    outcome = of_reply(refusal, deferrals=0, provider="outlook")
    assert outcome.pause is Pause.SENDER
    worker.paused(f"sender:{SENDER}", YAHOO, str(refusal), cause=outcome.cause, everywhere=True, until_ms=None)
    await worker.turn()
    [change] = log(engine)
    assert (change.rule, change.provider, change.ends_at) == ("sender authentication", None, None)
    assert (await gate(queue, f"sender:{SENDER}")).paused_until_ms == FOREVER_MS
    await queue.resume_gate(f"sender:{SENDER}")  # As if the queue's server had lost it.
    clock.advance(100 * 24 * 60 * MINUTE_MS)
    await shaper(engine, queue, clock).turn()
    assert (await gate(queue, f"sender:{SENDER}")).paused_until_ms == FOREVER_MS


async def test_what_is_resumed_stays_so_and_the_log_says_by_whom(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    worker = shaper(engine, queue, clock)
    worker.refused(GMAIL, BUSY)
    worker.paused(GMAIL.gate, GMAIL, "550", cause="x", everywhere=True, until_ms=None)
    await worker.turn()
    gates = controller(engine, queue, clock)
    assert await resume(engine, queue, GMAIL.gate, gates=gates, by="ada@house", now=clock.now()) == 2
    await worker.turn()
    assert await gate(queue, GMAIL.gate) == Gate(name=GMAIL.gate)
    assert {change.restored_by for change in log(engine)} == {"ada@house"}


async def test_the_tail_of_unknown_domains_is_not_slowed_by_one_of_them(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    worker = shaper(engine, queue, clock)
    worker.refused(LimitScope(sender=SENDER, receiver=Receiver("other")), BUSY)
    worker.refused(LimitScope(sender=SENDER, receiver=Receiver("other")), said("421 too many connections"))
    await worker.turn()
    assert log(engine) == []


async def test_what_is_open_is_a_metric(engine: sa.Engine, queue: Queue, clock: HandClock) -> None:
    registry = CollectorRegistry()
    worker = shaper(engine, queue, clock, registry=registry)
    worker.refused(YAHOO, TSS04)
    await worker.turn()
    shown = {"rule": "yahoo-deferral", "gate": YAHOO.gate}
    assert registry.get_sample_value("postroad_shaping_open", shown) == 1
    clock.advance(120 * MINUTE_MS)
    for _ in range(2):
        await worker.turn()
    assert registry.get_sample_value("postroad_shaping_open", shown) is None


async def test_the_tail_is_suspended_when_many_of_it_refuse(engine: sa.Engine, queue: Queue, clock: HandClock) -> None:
    tail = LimitScope(sender=SENDER, receiver=Receiver("other"))
    listed = said("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org")
    one, other = shaper(engine, queue, clock), shaper(engine, queue, clock)
    for worker, times in ((one, 4), (other, 5)):
        for _ in range(times):
            worker.refused(tail, listed)
        await worker.turn()
    assert log(engine) == []
    one.refused(tail, listed)
    await one.turn()
    assert [change.rule for change in log(engine)] == ["refused-by-many"]
    assert (await gate(queue, tail.gate)).paused_until_ms == clock.now_ms() + 60 * MINUTE_MS


async def test_the_default_for_each_host_is_no_limit_of_the_tail(
    engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    await shaper(engine, queue, clock, shaped={SENDER}).turn()
    assert await gate(queue, f"provider:other:{SENDER}") == Gate(name=f"provider:other:{SENDER}")


async def test_a_fault_of_ours_does_not_end_the_shaping(
    engine: sa.Engine, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    worker = shaper(engine, queue, SystemClock())
    async with worker.acting():
        worker._pauses["g"] = ShapingChange(gate="g", rule="r")  # type: ignore[call-arg]  # no table takes it
        worker._news.set()
        async with asyncio.timeout(10):
            while "shaping waits" not in caplog.text:
                await asyncio.sleep(0.01)
        worker.refused(YAHOO, TSS04)
    assert [change.rule for change in log(engine)] == ["yahoo-deferral"]


async def test_nothing_heard_is_lost_while_the_database_is_away(
    tmp_path: Path, engine: sa.Engine, queue: Queue, clock: HandClock
) -> None:
    away = open_engine(f"sqlite:///{tmp_path / 'no-tables.db'}")
    gates = controller(engine, queue, clock)
    worker = Shaper(engine=away, gates=gates, shaping=read_shaping(None), clock=clock)
    worker.refused(YAHOO, TSS04)
    with pytest.raises(UnavailableError):
        await worker.turn()
    worker._engine = engine  # It is back.
    await worker.turn()
    assert [change.rule for change in log(engine)] == ["yahoo-deferral"]


async def test_the_queue_away_leaves_the_row_and_the_gate_follows(
    engine: sa.Engine, own_redis: RedisServer, clock: HandClock
) -> None:
    async with Queue.open(own_redis.url, "shaping", clock=clock) as queue:
        worker = shaper(engine, queue, clock)
        own_redis.kill()
        worker.refused(YAHOO, TSS04)
        with pytest.raises(UnavailableError):
            await worker.turn()
        own_redis.start()
        await worker.turn()
        assert (await gate(queue, YAHOO.gate)).paused_until_ms == clock.now_ms() + 120 * MINUTE_MS
        assert len(log(engine)) == 1


async def test_what_is_heard_while_acting_is_done_at_once_and_the_last_word_is_kept(
    engine: sa.Engine, queue: Queue
) -> None:
    worker = shaper(engine, queue, SystemClock())
    async with worker.acting():
        worker.refused(YAHOO, TSS04)
        async with asyncio.timeout(10):
            while not (await gate(queue, YAHOO.gate)).paused_until_ms:
                await asyncio.sleep(0.01)
        worker.refused(GMAIL, BUSY)
    assert {change.rule for change in log(engine)} == {"yahoo-deferral", "busy"}


async def test_a_limit_that_leaves_the_file_leaves_the_queue(
    engine: sa.Engine, queue: Queue, clock: HandClock, tmp_path: Path
) -> None:
    own = tmp_path / "shaping.toml"
    own.write_text("[provider.google]\nconnections_in_all = 3\n", encoding="utf-8")
    by_hand = Gate(name="provider:yahoo", concurrency=2)

    async def turn(path: Path | None, shaped: Collection[str]) -> Gate:
        await queue.set_gate(by_hand)
        await shaper(engine, queue, clock, shaped, path).turn()
        return await gate(queue, "provider:google")

    await queue.set_gate(Gate(name="provider:google"))
    assert (await turn(own, {SENDER})).concurrency == 3
    assert (await turn(own, ())).concurrency is None  # its sender goes by a relay now
    assert await gate(queue, "provider:yahoo") == by_hand
