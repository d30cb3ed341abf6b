"""The story of a person: what holds each message, when it may leave, and what its delay is charged to."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from postroad.app.context import open_context
from postroad.delivery.outcome import route_down
from postroad.delivery.result import DeliveryResult, encode_result
from postroad.explain.cause import DelayCause
from postroad.explain.story import tell_story
from postroad.operations import campaigns
from postroad.queue import Defer
from postroad.settings import Settings
from postroad.store.campaign import CampaignState
from postroad.store.cohort import CohortEvidence, CohortPause, add_pause
from postroad.store.dns_report import SenderHold, save_hold
from postroad.store.engine import write
from postroad.store.heartbeat import ADVANCE, record_heartbeat
from postroad.store.ledger import TouchState
from postroad.store.shaping import ShapingChange, add_change
from tests.explain.cases import CASES
from tests.explain.scene import ADA, HOUR, MORNING, NEWS, Scene, ms

pytestmark = pytest.mark.parametrize("own_redis", ["valkey"], indirect=True)

C = DelayCause

HELD = {
    "ready": [],
    "waits for its variant": [C.DECISION],
    "gate paused": [C.GATE_PAUSED],
    "gate paused until": [C.GATE_PAUSED],
    "campaign paused": [C.CAMPAIGN_PAUSED],
    "rate": [C.RATE],
    "quota": [C.QUOTA],
    "concurrency": [C.CONCURRENCY],
    "warmup cap used up": [C.WARMUP_CAP],
    "before the hours of the warmup": [C.WARMUP_HOURS],
    "on a day off": [C.HOLIDAY],
    "outside the window": [C.WINDOW],
    "deferred to the window": [C.WINDOW],
    "scheduled": [C.SCHEDULE],
    "scheduled when the window is shut": [C.WINDOW, C.SCHEDULE],
    "retry": [C.DEFERRAL],
    "cohort paused": [C.COHORT_PAUSED],
    "dns hold": [C.SENDER_HOLD],
    "shaped": [C.GATE_PAUSED],
    "in flight": [C.SENDING],
    "uncertain": [C.UNKNOWN],
    "unknown": [C.UNKNOWN],
    "dead": [C.DEAD],
    "bounced": [],
    "accepted": [],
    "suppressed": [],
    "queued and suppressed": [C.SUPPRESSED],
    "cancelled": [],
    "over the frequency cap": [C.FREQUENCY],
    "to be skipped": [C.FREQUENCY_SKIP],
    "of an unknown frequency class": [C.FREQUENCY_CLASS],
    "skipped": [],
    "expired": [],
    "planned": [C.NOT_ENQUEUED],
    "withheld by a rollout": [C.ROLLOUT],
    "planned of a paused campaign": [C.CAMPAIGN_PAUSED],
    "lost by the queue": [C.NO_JOB],
}
"""The causes that hold the message of each case, the one that ends last first."""


@pytest.mark.parametrize("name", CASES)  # A case without an entry in HELD fails.
async def test_each_hold_has_a_cause_an_end_and_exact_charges(scene: Scene, name: str) -> None:
    case = CASES[name]
    await case.arrange(scene)
    message = await scene.message()
    assert [hold.cause for hold in message.holds] == HELD[name]
    assert all(hold.words and "{" not in hold.words + hold.remedy + hold.detail for hold in message.holds)
    assert message.waits is not case.touch_state.ended
    assert message.state is case.touch_state
    assert message.delay_ms == sum(one.ms for one in message.delays)
    if name == "in flight":
        assert (await scene.story()).answer == "1 message is being sent"
    elif message.waits and not any(hold.until is None for hold in message.holds):
        assert case.not_before is not None
        assert message.earliest_at == case.not_before
        assert message.earliest_local == case.not_before.astimezone(ZoneInfo("Europe/Berlin")).isoformat()
    else:
        assert message.earliest_at is None


async def test_all_holds_are_listed_and_the_last_to_end_comes_first(scene: Scene) -> None:
    scene.set_campaign(sending_window={"from": "09:00", "to": "17:00", "days": ["mon", "tue"]})
    await scene.enqueue()
    await scene.queue.pause_gate("route:relay", ms(MORNING + 3 * HOUR))
    message = await scene.message()
    assert [(hold.cause, hold.until) for hold in message.holds] == [
        (C.GATE_PAUSED, MORNING + 3 * HOUR),
        (C.WINDOW, MORNING + HOUR),
    ]
    assert message.earliest_at == MORNING + 3 * HOUR
    await campaigns.pause(scene.context.engine, scene.queue, "spring", by="Ada of marketing", now=MORNING)
    story = await scene.story()
    assert [hold.cause for hold in story.messages[0].holds] == [C.CAMPAIGN_PAUSED, C.GATE_PAUSED, C.WINDOW]
    assert "Ada of marketing" in story.messages[0].holds[0].words
    assert story.messages[0].holds[0].since == MORNING
    assert story.messages[0].earliest_at is None
    assert story.answer == "1 message waits, without a known end"


async def test_a_gate_that_opens_outside_the_hours_leaves_it_to_the_next_ones(scene: Scene) -> None:
    scene.set_campaign(sending_window={"from": "07:00", "to": "09:00", "days": ["mon", "tue"]})
    await scene.enqueue()
    await scene.queue.pause_gate("route:relay", ms(MORNING + 3 * HOUR))  # 11:00 in Berlin
    story = await scene.story()
    assert story.messages[0].earliest_local == "2026-05-05T07:00:00+02:00"
    assert story.answer == (
        "1 message waits, until 2026-05-05 07:00:00 in Europe/Berlin (2026-05-05 05:00:00 UTC) at the earliest"
    )


async def test_a_pause_names_its_rule_and_the_reply(scene: Scene) -> None:
    await CASES["shaped"].arrange(scene)
    [hold] = (await scene.message()).holds
    assert (hold.rule, hold.reply, hold.since, hold.until) == (
        "unusual rate",
        "421 4.7.28 slow down",
        MORNING,
        MORNING + HOUR,
    )
    assert hold.gate == f"provider:google:{NEWS}"
    assert f"sender {NEWS} at google" in hold.words


async def test_the_pause_of_a_route_names_the_failure_that_the_message_met(scene: Scene) -> None:
    await scene.enqueue()
    result = route_down("454 4.7.0 TLS not available")
    note = encode_result(result)
    await scene.queue.settle("w", [(await scene.claim(), Defer(cause=result.cause, delay_ms=1, note=note))])
    await scene.record()
    scene.clock.advance(10)
    await scene.queue.promote()
    await scene.queue.pause_gate_for("route:relay", 5_000)
    [hold] = (await scene.message()).holds
    assert (hold.gate, hold.rule, hold.reply) == (
        "route:relay",
        "route down",
        "454 4.7.0 TLS not available",
    )


async def test_a_queue_without_a_worker_holds_what_is_ready(scene: Scene) -> None:
    await scene.enqueue()
    assert (await scene.message()).holds == []
    for process in await scene.queue.processes():
        await scene.queue.leave(process.id)
    [hold] = (await scene.message()).holds
    assert (hold.cause, hold.words) == (C.NO_WORKER, "No worker of email:send is alive.")


async def test_a_planned_message_names_the_last_pass(scene: Scene) -> None:
    await CASES["planned"].arrange(scene)
    [hold] = (await scene.message()).holds
    assert "never" in hold.words
    with write(scene.context.engine) as connection:
        record_heartbeat(connection, ADVANCE, MORNING - HOUR)
    [hold] = (await scene.message()).holds
    assert (hold.since, "2026-05-04 05:00:00 UTC" in hold.words) == (MORNING, True)


@pytest.mark.parametrize("state", [state for state in CampaignState if state is not CampaignState.RUNNING])
async def test_every_state_of_a_campaign_but_running_holds_its_messages(scene: Scene, state: CampaignState) -> None:
    await scene.enqueue()
    scene.set_campaign(state=state)
    [hold] = (await scene.message()).holds
    expected = {CampaignState.DRAFT: C.CAMPAIGN_DRAFT, CampaignState.PAUSED: C.CAMPAIGN_PAUSED}
    assert hold.cause is expected.get(state, C.CAMPAIGN_ENDED)


async def test_an_outcome_that_is_not_recorded_is_said(scene: Scene) -> None:
    await scene.enqueue()
    note = encode_result(DeliveryResult(state=TouchState.DEFERRED, cause="greylisted, so far", reply="450 later"))
    await scene.queue.settle(
        "w", [(await scene.claim(), Defer(cause="greylisted, so far", delay_ms=60_000, note=note))]
    )
    [hold] = (await scene.message()).holds
    assert (hold.cause, hold.since, hold.until) == (C.DEFERRAL, MORNING, MORNING + timedelta(minutes=1))
    assert "greylisted" in hold.words


async def test_a_message_held_back_by_a_worker_is_checked_again(scene: Scene) -> None:
    await scene.enqueue()
    verdict = Defer(delay_ms=60_000, cause="campaign paused", untried=True)
    await scene.queue.settle("w", [(await scene.claim(admitted=False), verdict)])
    [hold] = (await scene.message()).holds
    assert (hold.cause, hold.until) == (C.RECHECK, MORNING + timedelta(minutes=1))
    assert "campaign paused" in hold.words


async def test_an_unreachable_queue_leaves_the_answer_of_the_ledger(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await CASES["shaped"].arrange(scene)
    monkeypatch.setenv("POSTROAD_REDIS_URL", "redis://127.0.0.1:1")
    async with open_context(Settings.load(tmp_path / "postroad.toml"), scene.clock) as unreachable:
        unreachable.engine = scene.context.engine
        story = await tell_story(unreachable, ADA)
    assert story.queue_error
    assert story.answer.endswith("the queue could not be asked")
    [hold] = story.messages[0].holds
    assert (hold.cause, hold.rule, hold.until) == (C.GATE_PAUSED, "unusual rate", MORNING + HOUR)
    assert story.messages[0].earliest_at == MORNING + HOUR


async def test_recorded_pauses_hold_a_message_that_is_not_enqueued(scene: Scene) -> None:
    scene.state(TouchState.PLANNED)
    hold = SenderHold(sender=NEWS, reason="SPF fails", failing_since=MORNING, held_at=MORNING)
    over = ShapingChange(
        gate=f"provider:google:{NEWS}", rule="slow", sender=NEWS, provider="google", reply="421", at=MORNING - HOUR,
        ends_at=MORNING - timedelta(minutes=1), suspended=True,
    )  # fmt: skip
    other = ShapingChange(
        gate=f"provider:yahoo:{NEWS}",
        rule="slow",
        sender=NEWS,
        provider="yahoo",
        reply="421",
        at=MORNING,
        suspended=True,
    )
    with write(scene.context.engine) as connection:
        save_hold(connection, hold)
        assert add_change(connection, over)
        assert add_change(connection, other)
    assert {one.cause for one in (await scene.message()).holds} == {C.SENDER_HOLD, C.NOT_ENQUEUED}


async def test_the_past_of_a_waiting_message_is_charged_to_its_causes(scene: Scene) -> None:
    await scene.enqueue()
    pause = CohortPause(
        step_id=scene.step, source="", provider="google", evidence=CohortEvidence.COMPLAINTS, reason="r", at=MORNING
    )
    with write(scene.context.engine) as connection:
        assert add_pause(connection, pause)
        connection.execute(
            sa.text("UPDATE cohort_pause SET lifted_at = :at").bindparams(
                sa.bindparam("at", MORNING + 2 * HOUR, type_=CohortPause.__table__.c.lifted_at.type)  # type: ignore[attr-defined]
            )
        )
    await scene.queue.pause_gate("route:relay", None)
    scene.clock.advance(ms(MORNING + 5 * HOUR) - ms(MORNING))
    message = await scene.message()
    assert {(one.cause, one.detail): one.ms for one in message.delays} == {
        (C.COHORT_PAUSED, "complaints"): 2 * 3_600_000,
        (C.GATE_PAUSED, "route:relay"): 3 * 3_600_000,
    }
    assert message.delay_ms == 5 * 3_600_000


async def test_time_at_a_rate_is_charged_to_the_gate_that_holds_the_lane(scene: Scene) -> None:
    await CASES["rate"].arrange(scene)
    scene.clock.advance(600_000)
    [one] = (await scene.message()).delays
    assert (one.cause, one.detail, one.ms) == (C.RATE, f"sender:{NEWS}", 600_000)
