"""A pause by an operator is recorded, and explains where the time of a message went: while it lasts and afterwards."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from postroad.explain.campaign_delays import campaign_delays
from postroad.explain.cause import DelayCause
from postroad.explain.charge import Charge
from postroad.gates.name import GateName
from postroad.operations import campaigns
from postroad.operations.gate_pauses import pause_gate, record_resume
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.operator_pause import operator_pauses, record_operator_pause, record_operator_resume
from postroad.store.touches.sending import HeldTouch, hold
from postroad.store.types import UtcDateTime
from tests.explain.scene import DAY, HOUR, MORNING, NEWS, Scene

SENDER = str(GateName.sender(NEWS))


def later(scene: Scene, by: timedelta) -> None:
    scene.clock.advance(by // timedelta(milliseconds=1))


def charges(found: list[Charge], cause: DelayCause) -> dict[str, int]:
    """Return the hours that are charged to a cause, by detail."""
    return {one.detail: one.ms // 3_600_000 for one in found if one.cause is cause}


async def test_a_pause_of_a_gate_is_charged_while_it_lasts_and_after_it(scene: Scene) -> None:
    engine, queue = scene.context.engine, scene.queue
    await scene.enqueue()
    await pause_gate(engine, queue, SENDER, None, by="ada@desk", now=MORNING)
    later(scene, 2 * HOUR)
    story = await scene.story()
    [message] = story.messages
    expected = {f"{SENDER} (by ada@desk)": 2}
    assert charges(message.delays, DelayCause.GATE_PAUSED) == expected
    delays = await campaign_delays(scene.context, "spring")
    assert charges(delays.waiting.delays, DelayCause.GATE_PAUSED) == expected  # As `explain` says it.
    await queue.resume_gate(SENDER)
    record_resume(engine, "email:send", SENDER, by="bob@desk", now=scene.clock.now())
    later(scene, HOUR)
    with write(engine) as connection:
        accepted = sa.text("UPDATE touch SET state = 'accepted', settled_at = :at")
        connection.execute(accepted.bindparams(sa.bindparam("at", type_=UtcDateTime())), {"at": scene.clock.now()})
    delays = await campaign_delays(scene.context, "spring")
    assert charges(delays.accepted.delays, DelayCause.GATE_PAUSED) == expected


async def test_a_past_pause_of_a_campaign_is_charged(scene: Scene) -> None:
    engine, queue = scene.context.engine, scene.queue
    await scene.enqueue()
    await campaigns.pause(engine, queue, "spring", by="ada", now=MORNING)
    later(scene, 3 * HOUR)
    await campaigns.resume(engine, queue, "spring", by="bob", now=scene.clock.now())
    later(scene, HOUR)
    delays = await campaign_delays(scene.context, "spring")
    assert charges(delays.waiting.delays, DelayCause.CAMPAIGN_PAUSED) == {"ada": 3}


async def test_the_time_before_a_frequency_cap_moved_the_due_time_is_kept(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        until = MORNING + 3 * DAY
        assert hold(connection, [HeldTouch(scene.touch, until, "over the frequency cap")]) == {scene.touch}
        assert hold(connection, [HeldTouch(scene.touch, until + HOUR, "over it again")]) == {scene.touch}
    later(scene, 2 * DAY)
    [message] = (await scene.story()).messages
    assert message.due_at == MORNING
    assert [hold.cause for hold in message.holds if hold.until == until + HOUR] == [DelayCause.RECHECK]
    delays = await campaign_delays(scene.context, "spring")
    assert (delays.waiting.touches, delays.waiting.total_ms) == (1, 2 * 86_400_000)


def test_pauses_of_a_gate_do_not_overlap(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        record_operator_pause(connection, "q", "g", by="a", now=MORNING, until=MORNING + HOUR)
        record_operator_pause(connection, "q", "g", by="b", now=MORNING + HOUR / 2, until=MORNING + 2 * HOUR)
        record_operator_pause(connection, "q", "g", by="c", now=MORNING + 3 * HOUR)
        record_operator_resume(connection, "q", "g", by="d", now=MORNING + 4 * HOUR)
        record_operator_resume(connection, "q", "other", by="d", now=MORNING + 4 * HOUR)
    with read(scene.context.engine) as connection:
        found = operator_pauses(connection, {"g", "other"}, MORNING, MORNING + DAY)
        assert [(one.by, one.at - MORNING, one.ended_at and one.ended_at - MORNING) for one in found] == [
            ("c", 3 * HOUR, 4 * HOUR),
            ("a", timedelta(), 2 * HOUR),
        ]
        assert operator_pauses(connection, {"g"}, MORNING + 5 * HOUR, MORNING + DAY) == []
        assert operator_pauses(connection, (), MORNING, MORNING + DAY) == []
        assert connection.execute(sa.text("SELECT count(*) FROM operator_pause")).scalar_one() == 2


async def test_a_recalled_step_is_named(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        at = MORNING.replace(tzinfo=None) if connection.dialect.name == "sqlite" else MORNING
        connection.execute(sa.text("UPDATE step SET recalled_at = :at"), {"at": str(at)})
    scene.state(TouchState.CANCELLED)
    [message] = (await scene.story()).messages
    assert any("Its step was recalled at 2026-05-04" in sentence for sentence in message.words)
