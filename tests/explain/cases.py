"""Every state and every hold of a message: how it is made, and what its explanation says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple

from postroad.delivery.job import lane_of
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.gates.name import GateName, Receiver
from postroad.operations import campaigns
from postroad.queue import Dead, Defer, Done, Gate, Job, Quota, Rate, Retry, Uncertain
from postroad.store.cohort import CohortEvidence, CohortPause, add_pause
from postroad.store.dns_report import SenderHold, save_hold
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.shaping import ShapingChange, add_change
from postroad.store.suppression import SuppressionReason, suppress
from postroad.store.variant import VariantTest, save_variant_test
from postroad.warmup.day import set_cap
from postroad.warmup.identity import of_sender
from tests.explain.scene import ADA, DAY, GOOGLE, HOUR, MORNING, NEWS, Scene, ms
from tests.explain.withheld import WITHHELD, withheld
from tests.store.rows import NOW, add_campaign, add_touch


class Case(NamedTuple):
    """What is done to the message, and what the explanation says."""

    arrange: Callable[[Scene], Awaitable[None]]
    held_by: str | None
    not_before: datetime | None
    words: tuple[str, ...]
    touch_state: TouchState = TouchState.QUEUED


async def _ready(scene: Scene) -> None:
    await scene.enqueue()


async def _paused_gate(scene: Scene) -> None:
    await scene.enqueue()
    await scene.queue.pause_gate("campaign:spring", None)


async def _timed_gate(scene: Scene) -> None:
    await scene.enqueue()
    await scene.queue.pause_gate("route:relay", ms(MORNING + HOUR))


async def _paused_campaign(scene: Scene) -> None:
    await scene.enqueue()
    await campaigns.pause(scene.context.engine, scene.queue, "spring", by="a test", now=NOW)


async def _rate(scene: Scene) -> None:
    await scene.queue.set_gate(Gate(name=str(GateName.sender(NEWS)), rate=Rate(count=1, per_ms=3_600_000)))
    await _one_goes_first(scene)


async def _one_goes_first(scene: Scene) -> None:
    lane = lane_of(sender=NEWS, receiver=Receiver("google"), campaign="spring", route="relay", job_class="bulk")
    await scene.queue.enqueue(lane, [Job(id="999999", payload=b"")])
    await scene.queue.claim("w", want=1, lease_ms=10**9, nonce="first")
    await scene.enqueue()


async def _quota(scene: Scene) -> None:
    await scene.queue.set_gate(
        Gate(name=str(GateName.sender(NEWS)), quota=Quota(left=0, until_ms=ms(MORNING + 3 * HOUR)))
    )
    await scene.enqueue()


async def _concurrency(scene: Scene) -> None:
    await scene.queue.set_gate(Gate(name=str(GateName.sender(NEWS)), concurrency=1))
    await _one_goes_first(scene)


async def cap_used(scene: Scene) -> None:
    [identity] = [one for one in of_sender(scene.context.settings, "news") if one.name == NEWS]
    set_cap(scene.context.engine, identity, "google", 0, by="ada", why="test", now=MORNING)
    await keep_caps(scene)
    await scene.enqueue(warm=True)


async def keep_caps(scene: Scene) -> None:
    await scene.context.gates(scene.queue).apply()


async def _before_hours_of_warmup(scene: Scene) -> None:
    scene.clock.advance(-3_600_000)  # 07:00 in Berlin
    await keep_caps(scene)
    await scene.enqueue(due=MORNING - DAY, warm=True)


async def _on_a_day_off(scene: Scene) -> None:
    """The day off of the settings is today."""
    hours = {"from": "08:00", "to": "17:00", "days": ["mon", "tue"], "holidays": True}
    scene.set_campaign(sending_window=hours)
    await scene.enqueue()


async def _outside_window(scene: Scene) -> None:
    scene.set_campaign(sending_window={"from": "09:00", "to": "17:00", "days": ["mon", "tue"]})
    await scene.enqueue()


async def _deferred_to_window(scene: Scene) -> None:
    """As admit puts it off."""
    await _outside_window(scene)
    job = await scene.claim(admitted=False)
    verdict = Defer(at_ms=ms(MORNING + HOUR), cause="outside the campaign's hours", untried=True)
    await scene.queue.settle("w", [(job, verdict)])
    await scene.record()


async def _scheduled(scene: Scene) -> None:
    await scene.enqueue(due=MORNING + 5 * HOUR)


async def _scheduled_past_window(scene: Scene) -> None:
    scene.set_campaign(sending_window={"from": "09:00", "to": "12:00", "days": ["mon", "tue"]})
    await scene.enqueue(due=MORNING + 5 * HOUR)  # 13:00 in Berlin


async def _retry_wait(scene: Scene) -> None:
    await scene.enqueue()
    note = encode_result(DeliveryResult(state=TouchState.DEFERRED, cause="connect", reply="refused"))
    retry = Retry(cause="connect", error="refused", at_ms=ms(MORNING + HOUR), note=note)
    await scene.queue.settle("w", [(await scene.claim(), retry)])
    await scene.record()


async def _cohort_paused(scene: Scene) -> None:
    await scene.enqueue()
    pause = CohortPause(
        step_id=scene.step, source="", provider="google", evidence=CohortEvidence.COMPLAINTS, reason="r", at=MORNING
    )
    with write(scene.context.engine) as connection:
        assert add_pause(connection, pause)


async def _dns_hold(scene: Scene) -> None:
    await scene.enqueue()
    hold = SenderHold(sender=NEWS, reason="SPF fails", failing_since=MORNING, held_at=MORNING)
    with write(scene.context.engine) as connection:
        save_hold(connection, hold)
    await scene.queue.pause_gate(str(GateName.hold(NEWS)), None)


async def _shaped(scene: Scene) -> None:
    gate = f"provider:google:{NEWS}"
    await scene.enqueue()
    change = ShapingChange(
        gate=gate, rule="unusual rate", sender=NEWS, provider="google", reply="421 4.7.28 slow down", at=MORNING,
        ends_at=MORNING + HOUR, suspended=True,
    )  # fmt: skip
    with write(scene.context.engine) as connection:
        assert add_change(connection, change)
    await scene.queue.pause_gate(gate, ms(MORNING + HOUR))


async def _in_flight(scene: Scene) -> None:
    await scene.enqueue()
    await scene.queue.mark([await scene.claim()])


async def _uncertain(scene: Scene) -> None:
    await scene.enqueue()
    await scene.queue.settle("w", [(await scene.claim(), Uncertain(cause="connection lost"))])


async def _unknown(scene: Scene) -> None:
    await _uncertain(scene)
    await scene.record()


async def _dead(scene: Scene) -> None:
    await scene.enqueue()
    note = encode_result(DeliveryResult(state=TouchState.DEAD, cause="policy", reply="550 5.7.1 no"))
    await scene.queue.settle("w", [(await scene.claim(), Dead(cause="policy", error="550 5.7.1 no", note=note))])
    await scene.record()


async def _bounced(scene: Scene) -> None:
    await scene.enqueue()
    note = encode_result(
        DeliveryResult(state=TouchState.BOUNCED, cause="no mailbox", reply="550 5.1.1 no", suppress=True)
    )
    await scene.queue.settle("w", [(await scene.claim(), Dead(cause="no mailbox", error="550 5.1.1 no", note=note))])
    await scene.record()


async def _accepted(scene: Scene) -> None:
    await scene.enqueue()
    note = encode_result(DeliveryResult(state=TouchState.ACCEPTED, reply="250 ok"))
    await scene.queue.settle("w", [(await scene.claim(), Done(note=note))])
    await scene.record()


async def _suppressed(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        suppress(connection, [ADA], SuppressionReason.COMPLAINT, "feedback loop", MORNING)
    scene.state(TouchState.SUPPRESSED)


async def _to_be_suppressed(scene: Scene) -> None:
    await scene.enqueue()
    with write(scene.context.engine) as connection:
        suppress(connection, [ADA], SuppressionReason.UNSUBSCRIBE, "one-click", MORNING)


async def _cancelled(scene: Scene) -> None:
    scene.state(TouchState.CANCELLED, reply="replied")


async def _over_frequency_cap(scene: Scene, **campaign: object) -> None:
    """Another campaign sent her a message an hour ago."""
    await scene.enqueue()
    with write(scene.context.engine) as connection:
        other, (step,) = add_campaign(connection, name="winter")
        add_touch(
            connection,
            other,
            step,
            TouchState.ACCEPTED,
            recipient_id=scene.recipient,
            settled_at=MORNING - HOUR,
        )
    if campaign:
        scene.set_campaign(**campaign)


async def _skipped_by_frequency_cap(scene: Scene) -> None:
    await _over_frequency_cap(scene, frequency_skip=True)


async def _of_unknown_frequency_class(scene: Scene) -> None:
    await scene.enqueue()
    scene.set_campaign(frequency="gone")


async def _skipped(scene: Scene) -> None:
    scene.state(TouchState.SKIPPED, reply="over the frequency cap normal (1/7d)")


async def _expired(scene: Scene) -> None:
    scene.state(TouchState.EXPIRED)


async def _planned(scene: Scene) -> None:
    scene.state(TouchState.PLANNED)


async def _waits_for_its_variant(scene: Scene) -> None:
    scene.state(TouchState.AWAITING)
    with write(scene.context.engine) as connection:
        test = VariantTest(
            step_id=scene.step, campaign_id=scene.campaign_id, begun_at=MORNING, decide_at=MORNING + 2 * DAY
        )
        save_variant_test(connection, test)


async def _planned_of_paused(scene: Scene) -> None:
    scene.state(TouchState.PLANNED)
    await campaigns.pause(scene.context.engine, scene.queue, "spring", by="a test", now=NOW)


async def _lost(scene: Scene) -> None:
    """The ledger has it queued, and the queue never got it."""


CASES = {
    "ready": Case(_ready, None, MORNING, ("No gate holds its lane",)),
    "waits for its variant": Case(
        _waits_for_its_variant,
        "variants",
        MORNING + 2 * DAY,
        ("decision on the variants of step step-1, which is made at 2026-05-06 06:00:00 UTC at the latest",),
        TouchState.AWAITING,
    ),
    "gate paused": Case(_paused_gate, "gate campaign:spring", None, ("until it is resumed",)),
    "gate paused until": Case(_timed_gate, "gate route:relay", MORNING + HOUR, ("until 2026-05-04 07:00:00 UTC",)),
    "campaign paused": Case(_paused_campaign, "group spring", None, ("campaign spring is paused",)),
    "rate": Case(_rate, f"gate sender:{NEWS}", MORNING + HOUR, ("the next one goes at 2026-05-04 07:00:00 UTC",)),
    "quota": Case(_quota, f"gate sender:{NEWS}", MORNING + 3 * HOUR, ("used up until 2026-05-04 09:00:00 UTC",)),
    "concurrency": Case(_concurrency, f"gate sender:{NEWS}", None, ("1 in flight of 1",)),
    "warmup cap used up": Case(
        cap_used,
        f"gate {GOOGLE}",
        MORNING + DAY,
        ("used up until 2026-05-05 06:00:00 UTC", "begins at 2026-05-05 08:00 in Europe/Berlin"),
    ),
    "before the hours of the warmup": Case(
        _before_hours_of_warmup, f"gate {GOOGLE}", MORNING, ("they open at 2026-05-04 08:00 in Europe/Berlin",)
    ),
    "on a day off": Case(
        _on_a_day_off, "hours", MORNING + DAY, ("On a holiday or a day off", "mail may leave at 2026-05-05 08:00 there")
    ),
    "outside the window": Case(_outside_window, "hours", MORNING + HOUR, ("they open at 2026-05-04 09:00 there",)),
    "deferred to the window": Case(
        _deferred_to_window,
        "hours",
        MORNING + HOUR,
        ("Outside the campaign's hours", "due at 2026-05-04 07"),
    ),
    "scheduled": Case(_scheduled, None, MORNING + 5 * HOUR, ("Scheduled: due at 2026-05-04 11:00:00 UTC",)),
    "scheduled when the window is shut": Case(
        _scheduled_past_window, "hours", MORNING + DAY + HOUR, ("they open at 2026-05-05 09:00 there",)
    ),
    "retry": Case(
        _retry_wait,
        None,
        MORNING + HOUR,
        ("deferred at 2026-05-04 06:00:00 UTC after attempt 1: connect (refused)",),
        TouchState.DEFERRED,
    ),
    "cohort paused": Case(_cohort_paused, "cohort", None, ("its cohort is paused (complaints)",)),
    "dns hold": Case(_dns_hold, f"gate hold:{NEWS}", None, ("SPF fails",)),
    "shaped": Case(_shaped, f"gate provider:google:{NEWS}", MORNING + HOUR, ("unusual rate: 421 4.7.28 slow down",)),
    "in flight": Case(_in_flight, None, None, ("has begun the act",), TouchState.SENDING),
    "uncertain": Case(_uncertain, None, None, ("Uncertain since",), TouchState.SENDING),
    "unknown": Case(_unknown, None, None, ("It may have arrived", "unknown resolve"), TouchState.UNKNOWN),
    "dead": Case(_dead, None, None, ("550 5.7.1 no", "queue replay"), TouchState.DEAD),
    "bounced": Case(_bounced, None, None, ("550 5.1.1 no", "hard bounce"), TouchState.BOUNCED),
    "accepted": Case(_accepted, None, None, ("Accepted by the receiver", "250 ok"), TouchState.ACCEPTED),
    "suppressed": Case(_suppressed, None, None, ("complaint (feedback loop)",), TouchState.SUPPRESSED),
    "queued and suppressed": Case(_to_be_suppressed, "suppression", None, ("unsubscribe (one-click)",)),
    "cancelled": Case(_cancelled, None, None, ("Cancelled at 2026-05-04 06:00:00 UTC: replied",), TouchState.CANCELLED),
    "over the frequency cap": Case(
        _over_frequency_cap,
        "frequency",
        MORNING - HOUR + 7 * DAY,
        ("over the frequency cap normal (1/7d), until 2026-05-11 05:00:00 UTC",),
    ),
    "to be skipped": Case(_skipped_by_frequency_cap, None, MORNING, ("It is skipped when a worker claims it",)),
    "of an unknown frequency class": Case(
        _of_unknown_frequency_class, "frequency", None, ("the settings have no frequency class gone",)
    ),
    "skipped": Case(_skipped, None, None, ("Skipped at 2026-05-04", "frequency cap normal"), TouchState.SKIPPED),
    "expired": Case(_expired, None, None, ("was not delivered in time",), TouchState.EXPIRED),
    "planned": Case(_planned, None, MORNING, ("Planned: due at 2026-05-04 06:00:00 UTC",), TouchState.PLANNED),
    "withheld by a rollout": Case(withheld, "rollout", None, WITHHELD, TouchState.WITHHELD),
    "planned of a paused campaign": Case(
        _planned_of_paused, "campaign", MORNING, ("campaign spring is paused",), TouchState.PLANNED
    ),
    "lost by the queue": Case(_lost, None, None, ("the queue has no job of it", "queue rebuild")),
}
