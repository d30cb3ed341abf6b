"""A message that a rollout withholds."""

from __future__ import annotations

import sqlalchemy as sa

from postroad.store.engine import write
from postroad.store.ledger import TouchState
from postroad.store.rollout import RolloutShare, ShareHold, add_shares, record_hold, shares_of
from tests.explain.scene import MORNING, Scene

WITHHELD = ("it is in share 2 of 2 (100 %). Share 2 is not let go: too few outcomes", "Withheld by the rollout")
"""What its explanation says."""


async def withheld(scene: Scene) -> None:
    """The rollout of its campaign let go the first share, and holds the second, which it is in."""
    scene.state(TouchState.WITHHELD)
    with write(scene.context.engine) as connection:
        connection.execute(sa.text("UPDATE touch SET share = 2"))
        shares = [
            RolloutShare(campaign_id=scene.campaign_id, number=1, basis_points=100, people=1, opened_at=MORNING),
            RolloutShare(campaign_id=scene.campaign_id, number=2, basis_points=10_000, people=1),
        ]
        add_shares(connection, shares)
        [_, second] = shares_of(connection, scene.campaign_id)
        record_hold(connection, second, ShareHold("outcomes", "too few outcomes are known"), MORNING)
