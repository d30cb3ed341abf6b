"""Doctor fails if a campaign names a frequency class that the settings do not have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.engine import write
from tests.doctor.conftest import Change, Doctor
from tests.store.rows import add_campaign


def test_a_class_that_the_settings_lack_fails(site: Path, doctor: Doctor, change: Change) -> None:
    async def arrange(context: AppContext) -> None:
        def rows() -> None:
            with write(context.engine) as connection:
                add_campaign(connection, name="spring")
                add_campaign(connection, name="summer", state=CampaignState.PAUSED)
                connection.execute(sa.update(Campaign).values(frequency="rare"))
                add_campaign(connection, name="winter", state=CampaignState.FINISHED)
                over = sa.text("UPDATE campaign SET frequency = 'past' WHERE name = 'winter'")
                connection.execute(over)

        await asyncio.to_thread(rows)

    change(arrange)
    check = doctor()["frequency"]
    assert check["health"] == "fail"
    assert check["seen"] == "campaign spring, summer: there is no frequency class 'rare' (known: none)"
    assert 'rare = "3/7d"' in check["remedy"]
    with (site / "postroad.toml").open("a") as file:
        file.write('\n[frequency]\nrare = "1/30d"\n')
    assert "frequency" not in doctor()
