"""Every state and every hold of a message is explained: what holds it, until when, and what the ledger knows of it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.touch_search import find_touches, touch_ids
from tests.explain.cases import CASES, cap_used, keep_caps
from tests.explain.scene import ADA, Scene, ms
from tests.store.rows import add_campaign, add_touch


@pytest.mark.parametrize("name", CASES)
async def test_state_and_hold_are_explained(scene: Scene, name: str) -> None:
    case = CASES[name]
    await case.arrange(scene)
    said = await scene.explain()
    text = " ".join(said.words)
    for words in case.words:
        assert words in text
    not_before = None if case.not_before is None else ms(case.not_before)
    assert (said.held_by, said.not_before_ms, said.touch_state) == (case.held_by, not_before, case.touch_state), text


async def test_cap_that_is_used_up_opens_when_explained(scene: Scene) -> None:
    """The time that is named is the time at which the queue lets the message go."""
    await cap_used(scene)
    said = await scene.explain()
    assert said.not_before_ms is not None
    scene.clock.advance(said.not_before_ms - scene.clock.now_ms() - 60_000)
    with write(scene.context.engine) as connection:
        connection.execute(sa.text("UPDATE warmup_day SET cap = 50"))
    await keep_caps(scene)
    assert (await scene.queue.claim("w", want=1, lease_ms=1000, nonce="early")).jobs == []
    scene.clock.advance(60_000)
    await keep_caps(scene)
    assert len((await scene.queue.claim("w", want=1, lease_ms=1000, nonce="due")).jobs) == 1


async def test_an_address_lists_its_messages_newest_first(scene: Scene) -> None:
    with write(scene.context.engine) as connection:
        campaign, (step,) = add_campaign(connection, name="autumn")
        later = add_touch(connection, campaign, step, TouchState.DEAD, recipient_id=scene.recipient)
    found = await find_touches(scene.context, " Ada@GMAIL.com ")
    assert [(touch.id, touch.campaign) for touch in found] == [(later, "autumn"), (scene.touch, "spring")]
    assert await touch_ids(scene.context, [ADA, "7"], "email:send") == [str(later), str(scene.touch), "7"]
    assert await touch_ids(scene.context, [ADA], "email:send", (TouchState.DEAD,)) == [str(later)]
