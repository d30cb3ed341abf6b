"""A submission limits new gates before the first job gets there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.app.submit import submit
from postroad.campaign.plan import launch
from postroad.delivery.job import SEND_QUEUE
from postroad.gates.name import GateName, Receiver
from tests.forecast.test_forecast import ADA, SETTINGS, campaign, clock, open_with, readers  # noqa: F401
from tests.kit.clock import FakeClock


@pytest.fixture
async def shaped(
    engine: sa.Engine,
    redis_url: str,
    tmp_path: Path,
    clock: FakeClock,  # noqa: F811
) -> AsyncIterator[AppContext]:
    (tmp_path / "shaping.toml").write_text('[provider.google]\nrate = "60/1h"\n')
    text = SETTINGS.replace("rate =", "#") + '[delivery]\nshaping = "shaping.toml"\n'
    async for opened in open_with(engine, redis_url, tmp_path, clock, text):
        yield opened


async def test_the_first_jobs_to_a_provider_keep_its_rate(shaped: AppContext) -> None:
    campaign(shaped, readers(90, "gmail.com"))
    launch(shaped.engine, "trial", shaped.clock.now())
    assert (await submit(shaped, "trial", cursor=0, rows=1_000)).submitted == 90
    queue = await shaped.queue(SEND_QUEUE)
    claimed = (await queue.claim("w", want=90, lease_ms=60_000, nonce="n")).jobs
    assert len(claimed) == 1
    name = str(GateName.at_receiver(ADA, Receiver("google")))
    [state] = [state for state in await queue.gates() if state.gate.name == name]
    assert state.gate.rate is not None
    assert (state.gate.rate.count, state.gate.rate.per_ms) == (60, 3_600_000)
    await queue.cancel([job.id for job in claimed], "test")
