"""The time for which a rollout withheld a message is charged to it, also after the message left."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from postroad.explain.cause import DelayCause
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.rollout import RolloutShare, add_shares, open_share, shares_of
from postroad.store.touches.withholding import ReleasedTouch, release
from tests.explain.scene import HOUR, MORNING, Scene

pytestmark = pytest.mark.parametrize("own_redis", ["valkey"], indirect=True)


async def test_a_delay_has_the_time_until_the_share_was_let_go(scene: Scene) -> None:
    scene.state(TouchState.WITHHELD)
    with write(scene.context.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET share = 2"))
        add_shares(
            connection,
            [RolloutShare(campaign_id=scene.campaign_id, number=n, basis_points=5_000 * n, people=1) for n in (1, 2)],
        )
    scene.clock.advance(3_600_000)
    message = await scene.message()
    assert {one.cause: one.ms for one in message.delays} == {DelayCause.ROLLOUT: message.delay_ms}
    assert message.delay_ms > 0
    with write(scene.context.engine) as connection:
        for share in shares_of(connection, scene.campaign_id):
            open_share(connection, share.id or 0, by="ada", now=MORNING + 2 * HOUR)
        assert release(connection, [ReleasedTouch(scene.touch, MORNING + 3 * HOUR)]) == 1
        settled = "UPDATE touch SET state = 'accepted', settled_at = :at"
        at = MORNING + 4 * HOUR
        values = {"at": str(at.replace(tzinfo=None)) if connection.dialect.name == "sqlite" else at}
        connection.execute(sa.text(settled), values)
    message = await scene.message()
    charged = {one.cause: one.ms / 3_600_000 for one in message.delays}
    assert charged == {DelayCause.ROLLOUT: 2, DelayCause.SCHEDULE: 1, DelayCause.TURN: 1}
    assert message.delay_ms == 4 * 3_600_000
