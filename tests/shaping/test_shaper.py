"""Replies become rows and gates, once for all workers, and are undone when they expire."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from postroad.delivery.outcome import classify_reply
from postroad.delivery.result import Pause
from postroad.gates.name import Receiver
from postroad.queue import FOREVER_MS, Gate, Job, Queue, Quota, Rate
from postroad.shaping.limits import LimitScope
from postroad.shaping.shaper import resume
from postroad.store.engine import read
from postroad.store.shaping import ShapingReply
from tests.delivery.queue_of_touches import lane
from tests.kit.clock import FakeClock
from tests.shaping.shapers import (
    BUSY,
    GMAIL,
    MINUTE_MS,
    SENDER,
    TSS04,
    UNUSUAL,
    YAHOO,
    controller,
    gate,
    log,
    reply,
    shaper,
)


async def test_a_suspension_applies_to_all_workers_and_expires(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    one = shaper(engine, queue, clock)
    one.refused(YAHOO, TSS04)
    await one.run_once()
    assert (await gate(queue, YAHOO.gate)).paused_until_ms == clock.now_ms() + 120 * MINUTE_MS
    [change] = log(engine)
    assert (change.rule, change.sender, change.provider, change.suspended) == ("yahoo-deferral", SENDER, "yahoo", True)
    assert "[TSS04]" in change.reply
    assert change.restored_at is None
    clock.advance(120 * MINUTE_MS)
    await one.run_once()
    [change] = log(engine)
    assert (change.restored_at, change.restored_by) == (clock.now(), "end")


async def test_an_expired_change_restores_the_gate_after_a_restart(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    first = shaper(engine, queue, clock)
    first.refused(GMAIL, BUSY)
    await first.run_once()
    slowed = await gate(queue, GMAIL.gate)
    assert (slowed.rate, slowed.concurrency) == (Rate(count=1, per_ms=MINUTE_MS), 1)
    clock.advance(90 * MINUTE_MS)
    # The worker that received the reply has ended.
    await shaper(engine, queue, clock).run_once()
    assert await gate(queue, GMAIL.gate) == Gate(name=GMAIL.gate)
    assert log(engine)[0].restored_at == clock.now()


async def test_limits_of_the_file_apply_to_direct_routes(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    from postroad.delivery.job import lane_of

    google = lane_of(sender=SENDER, receiver=Receiver("google"), campaign="spring", route="direct", job_class="bulk")
    await queue.enqueue(google, [Job(id="1", payload=b"")])
    await queue.set_gate(Gate(name=GMAIL.gate, quota=Quota(left=7, until_ms=FOREVER_MS)))
    worker = shaper(engine, queue, clock, shaped={SENDER})
    await worker.run_once()
    limited = await gate(queue, GMAIL.gate)
    assert (limited.rate, limited.concurrency) == (Rate(count=100, per_ms=1000, burst=5), 10)
    assert limited.quota == Quota(left=7, until_ms=FOREVER_MS)  # of another source
    assert (await gate(queue, "provider:google")).concurrency == 5
    worker.refused(GMAIL, BUSY)
    await worker.run_once()
    assert (await gate(queue, GMAIL.gate)).concurrency == 1
    clock.advance(90 * MINUTE_MS)
    await worker.run_once()
    assert await gate(queue, GMAIL.gate) == limited


async def test_replies_to_different_workers_count_together(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    one, other = shaper(engine, queue, clock), shaper(engine, queue, clock)
    one.refused(GMAIL, UNUSUAL)
    await one.run_once()
    assert [change.rule for change in log(engine)] == ["pace"]  # Not often enough for the rule; slower all the same.
    clock.advance(59 * MINUTE_MS)
    other.refused(GMAIL, UNUSUAL)
    await other.run_once()
    assert "google-unusual-rate" in [change.rule for change in log(engine)]
    assert (await gate(queue, GMAIL.gate)).rate == Rate(count=10, per_ms=MINUTE_MS)


async def test_replies_older_than_an_hour_do_not_count(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    worker = shaper(engine, queue, clock)
    for _ in range(3):
        worker.refused(GMAIL, UNUSUAL)
        await worker.run_once()
        clock.advance(60 * MINUTE_MS)
    assert {change.rule for change in log(engine)} == {"pace"}
    with read(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(ShapingReply)).scalar() == 1


async def test_concurrent_workers_make_one_change(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    workers = [shaper(engine, queue, clock) for _ in range(4)]
    for worker in workers:
        for _ in range(50):
            worker.refused(YAHOO, TSS04)
    await asyncio.gather(*(worker.run_once() for worker in workers))
    assert len(log(engine)) == 1
    paused = await gate(queue, YAHOO.gate)
    clock.advance(MINUTE_MS)
    for worker in workers:
        worker.refused(YAHOO, TSS04)
    await asyncio.gather(*(worker.run_once() for worker in workers))
    assert len(log(engine)) == 1
    assert await gate(queue, YAHOO.gate) == paused
    clock.advance(120 * MINUTE_MS)
    await asyncio.gather(*(worker.run_once() for worker in workers))
    assert [change.restored_by for change in log(engine)] == ["end"]


async def test_a_rule_acts_again_after_its_time(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    worker = shaper(engine, queue, clock)
    worker.refused(YAHOO, TSS04)
    await worker.run_once()
    clock.advance(120 * MINUTE_MS + 1)
    worker.refused(YAHOO, TSS04)  # Received before the first change was closed.
    await worker.run_once()
    newest, first = log(engine)
    assert first.restored_at == newest.at
    assert newest.restored_at is None
    assert (await gate(queue, YAHOO.gate)).paused_until_ms == clock.now_ms() + 120 * MINUTE_MS


async def test_the_rate_grows_with_acceptances_until_unlimited(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    worker, other = shaper(engine, queue, clock), shaper(engine, queue, clock)
    worker.refused(YAHOO, reply("421 Rate limit reached. Please try again later"))
    await worker.run_once()
    assert (await gate(queue, YAHOO.gate)).concurrency == 5
    clock.advance(MINUTE_MS)
    await worker.run_once()
    assert (await gate(queue, YAHOO.gate)).concurrency == 5  # Nothing was accepted.
    await other.run_once()
    for _ in range(8):
        worker.accepted(YAHOO)
        other.accepted(YAHOO)
        await asyncio.gather(worker.run_once(), other.run_once())
        clock.advance(MINUTE_MS)
    await worker.run_once()
    assert await gate(queue, YAHOO.gate) == Gate(name=YAHOO.gate)
    [change] = log(engine)
    assert (change.share, change.restored_by) == (1.0, "end")


async def test_a_pause_for_authentication_survives_a_queue_loss(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    worker = shaper(engine, queue, clock)
    refusal = reply("550 5.7.515 Access denied, sending domain example.com does not meet the required level")
    outcome = classify_reply(refusal, deferrals=0, provider="outlook")
    assert outcome.pause is Pause.SENDER
    worker.paused(f"sender:{SENDER}", YAHOO, str(refusal), cause=outcome.cause, everywhere=True, until_ms=None)
    await worker.run_once()
    [change] = log(engine)
    assert (change.rule, change.provider, change.ends_at) == ("sender authentication", None, None)
    assert (await gate(queue, f"sender:{SENDER}")).paused_until_ms == FOREVER_MS
    await queue.resume_gate(f"sender:{SENDER}")  # As if the queue's server had lost it.
    clock.advance(100 * 24 * 60 * MINUTE_MS)
    await shaper(engine, queue, clock).run_once()
    assert (await gate(queue, f"sender:{SENDER}")).paused_until_ms == FOREVER_MS


async def test_resuming_a_gate_closes_its_changes(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    worker = shaper(engine, queue, clock)
    worker.refused(GMAIL, BUSY)
    worker.paused(GMAIL.gate, GMAIL, "550", cause="x", everywhere=True, until_ms=None)
    await worker.run_once()
    gates = controller(engine, queue, clock)
    assert await resume(engine, queue, GMAIL.gate, gates=gates, by="ada@host", now=clock.now()) == 2
    await worker.run_once()
    assert await gate(queue, GMAIL.gate) == Gate(name=GMAIL.gate)
    assert {change.restored_by for change in log(engine)} == {"ada@host"}


async def test_one_reply_does_not_slow_all_unknown_domains(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    worker = shaper(engine, queue, clock)
    worker.refused(LimitScope(sender=SENDER, receiver=Receiver("other")), BUSY)
    worker.refused(LimitScope(sender=SENDER, receiver=Receiver("other")), reply("421 too many connections"))
    await worker.run_once()
    assert log(engine) == []


async def test_open_changes_are_a_metric(engine: sa.Engine, queue: Queue, clock: FakeClock) -> None:
    registry = CollectorRegistry()
    worker = shaper(engine, queue, clock, registry=registry)
    worker.refused(YAHOO, TSS04)
    await worker.run_once()
    shown = {"rule": "yahoo-deferral", "gate": YAHOO.gate}
    assert registry.get_sample_value("postroad_shaping_open", shown) == 1
    clock.advance(120 * MINUTE_MS)
    for _ in range(2):
        await worker.run_once()
    assert registry.get_sample_value("postroad_shaping_open", shown) is None


async def test_unknown_domains_are_suspended_when_many_refuse(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    tail = LimitScope(sender=SENDER, receiver=Receiver("other"))
    listed = reply("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org")
    one, other = shaper(engine, queue, clock), shaper(engine, queue, clock)
    for worker, times in ((one, 4), (other, 5)):
        for _ in range(times):
            worker.refused(tail, listed)
        await worker.run_once()
    assert log(engine) == []
    one.refused(tail, listed)
    await one.run_once()
    assert [change.rule for change in log(engine)] == ["refused-by-many"]
    assert (await gate(queue, tail.gate)).paused_until_ms == clock.now_ms() + 60 * MINUTE_MS


async def test_the_default_does_not_limit_all_unknown_domains(
    engine: sa.Engine, queue: Queue, clock: FakeClock
) -> None:
    await queue.enqueue(lane(), [Job(id="1", payload=b"")])
    await shaper(engine, queue, clock, shaped={SENDER}).run_once()
    assert await gate(queue, f"provider:other:{SENDER}") == Gate(name=f"provider:other:{SENDER}")


async def test_a_limit_removed_from_the_file_is_removed_from_the_queue(
    engine: sa.Engine, queue: Queue, clock: FakeClock, tmp_path: Path
) -> None:
    own = tmp_path / "shaping.toml"
    own.write_text("[provider.google]\nconnections_in_all = 3\n", encoding="utf-8")
    by_hand = Gate(name="provider:yahoo", concurrency=2)

    async def turn(path: Path | None, shaped: Collection[str]) -> Gate:
        await queue.set_gate(by_hand)
        await shaper(engine, queue, clock, shaped, path).run_once()
        return await gate(queue, "provider:google")

    await queue.set_gate(Gate(name="provider:google"))
    assert (await turn(own, {SENDER})).concurrency == 3
    assert (await turn(own, ())).concurrency is None  # its sender goes by a relay now
    assert await gate(queue, "provider:yahoo") == by_hand
