"""Doctor fails if running campaigns are not advanced."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from postroad.app.context import AppContext
from postroad.store.campaign import CampaignState
from postroad.store.engine import write
from postroad.store.heartbeat import ADVANCE, record_heartbeat
from tests.doctor.conftest import Change, Doctor
from tests.store.rows import add_campaign


@pytest.mark.parametrize(
    ("state", "launched_min", "advanced_min", "health"),
    [
        (CampaignState.PAUSED, 600, 600, "ok"),
        (CampaignState.RUNNING, 600, 4, "ok"),
        (CampaignState.RUNNING, 600, 20, "fail"),
        (CampaignState.RUNNING, 600, None, "fail"),
        (CampaignState.RUNNING, 4, 600, "ok"),
        (CampaignState.RUNNING, 4, None, "ok"),
    ],
)
def test_a_stale_advance_fails_while_a_campaign_runs(
    doctor: Doctor, change: Change, state: CampaignState, launched_min: int, advanced_min: int | None, health: str
) -> None:
    now = datetime.now(UTC)

    async def arrange(context: AppContext) -> None:
        def rows() -> None:
            with write(context.engine) as connection:
                add_campaign(connection, state=state, launched_at=now - timedelta(minutes=launched_min))
                if advanced_min is not None:
                    record_heartbeat(connection, ADVANCE, now - timedelta(minutes=advanced_min))

        await asyncio.to_thread(rows)

    change(arrange)
    check = doctor()["advance"]
    assert check["health"] == health, check
    assert ("postroad advance" in check["remedy"]) == (health == "fail")
