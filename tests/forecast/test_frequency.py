"""Frequency caps in a forecast: messages over a cap leave when it allows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.campaign.apply import apply
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.store.engine import write
from postroad.store.types import UtcDateTime
from tests.forecast.test_forecast import (  # noqa: F401  (clock is a fixture)
    MONDAY,
    SETTINGS,
    campaign,
    clock,
    forecast,
    hours_after,
    open_with,
    readers,
)
from tests.kit.clock import FakeClock

DAY = timedelta(days=1)
CAPS = '\n[frequency]\nnormal = "1/7d"\nrare = "2/30d"\n'


@pytest.fixture
async def capped(
    engine: sa.Engine,
    redis_url: str,
    tmp_path: Path,
    clock: FakeClock,  # noqa: F811
) -> AsyncIterator[AppContext]:
    async for opened in open_with(engine, redis_url, tmp_path, clock, SETTINGS + CAPS):
        yield opened


def sent_before(context: AppContext, count: int, *times: datetime) -> None:
    """Let a finished campaign have reached the first readers, once at each time."""
    for number, at in enumerate(times):
        name = f"before-{number}"
        campaign(context, readers(count), name=name)
        launch(context.engine, name, at)
        with write(context.engine) as connection:
            accepted = sa.text(
                "UPDATE touch SET state = 'accepted', settled_at = :at, follow_up = false "
                "WHERE campaign_id = (SELECT id FROM campaign WHERE name = :name)"
            ).bindparams(sa.bindparam("at", type_=UtcDateTime()))
            connection.execute(accepted, {"at": at, "name": name})
            connection.execute(sa.text("UPDATE campaign SET state = 'finished' WHERE name = :name"), {"name": name})


async def test_a_draft_waits_for_what_was_sent_before(capped: AppContext) -> None:
    sent_before(capped, 5, MONDAY - 2 * DAY)
    campaign(capped, readers(10))
    found = await forecast(capped)
    assert round(found.messages) == 20
    # Five readers may get mail again after five days, and their second email a week later.
    assert 12 * 24 <= hours_after(found) < 12 * 24 + 2
    campaign(capped, readers(10), more="frequency: ignore")
    assert hours_after(await forecast(capped)) < 8


async def test_a_running_campaign_waits_for_what_was_sent_before(capped: AppContext) -> None:
    sent_before(capped, 5, MONDAY - 20 * DAY, MONDAY - 10 * DAY)
    campaign(capped, readers(10), more="frequency: rare")
    launch(capped.engine, "trial", MONDAY)
    assert 10 * 24 <= hours_after(await forecast(capped)) < 10 * 24 + 8


async def test_a_segment_waits_for_what_was_sent_before(capped: AppContext) -> None:
    sent_before(capped, 5, MONDAY - 2 * DAY)
    campaign(capped, readers(10))
    path = capped.settings.base_dir / "campaign.yaml"
    where = "audience: {name: trial, where: \"domain() = 'mailbox.example'\"}"
    path.write_text(path.read_text().replace("audience: {name: trial}", where))
    apply(capped.engine, capped.settings, read_campaign(path, capped.settings), MONDAY)
    found = await forecast(capped)
    assert round(found.messages) == 20
    assert 12 * 24 <= hours_after(found) < 12 * 24 + 2


async def test_what_a_rollout_withholds_waits_for_what_was_sent_before(capped: AppContext) -> None:
    sent_before(capped, 10, MONDAY - 2 * DAY)
    campaign(capped, readers(10), more="rollout: [50%, 100%]")
    assert 12 * 24 <= hours_after(await forecast(capped)) < 12 * 24 + 8
    launch(capped.engine, "trial", MONDAY)
    with write(capped.engine) as connection:  # The first share left before.
        connection.execute(sa.text("UPDATE touch SET state = 'cancelled' WHERE state = 'planned'"))
    found = await forecast(capped)
    assert round(found.steps[0].messages) == 5
    assert found.steps[0].first_at >= MONDAY + 5 * DAY


async def test_what_is_skipped_does_not_wait(capped: AppContext) -> None:
    sent_before(capped, 5, MONDAY - 2 * DAY)
    campaign(capped, readers(10), more="frequency: {class: normal, when_over: skip}")
    assert hours_after(await forecast(capped)) < 8
