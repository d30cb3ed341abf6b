"""Lists of campaigns that stopped recently."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from postroad.campaign.status import campaigns_stopped_since
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.engine import write
from tests.campaign.project import CAMPAIGN, NOW, CampaignProject

HOUR = timedelta(hours=1)


def test_recently_stopped_campaigns_are_listed(project: CampaignProject) -> None:
    table = Campaign.__table__  # type: ignore[attr-defined]
    stopped: dict[str, dict[str, object]] = {
        "runs": {"state": CampaignState.RUNNING},
        "cancelled": {"state": CampaignState.CANCELLED, "finished_at": NOW - HOUR},
        "finished": {"state": CampaignState.FINISHED, "finished_at": NOW},
        "finished-long-ago": {"state": CampaignState.FINISHED, "finished_at": NOW - 3 * HOUR},
        "paused": {"state": CampaignState.PAUSED, "paused_at": NOW},
        "paused-long-ago": {"state": CampaignState.PAUSED, "paused_at": NOW - 3 * HOUR},
    }
    for name, values in stopped.items():
        project.apply(CAMPAIGN.replace("name: spring", f"name: {name}"))
        with write(project.engine) as connection:
            connection.execute(sa.update(table).where(table.c.name == name).values(**values))
    assert campaigns_stopped_since(project.engine, NOW - 2 * HOUR) == ["cancelled", "finished", "paused"]
