"""A campaign whose template takes all it can does not hold up another, and SIGTERM ends the worker."""

from __future__ import annotations

import asyncio

import pytest

from postroad.app.submit import submit
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.campaign.status import summary
from postroad.store.ledger import TouchState
from tests.end_to_end.site import CAMPAIGN, TEXT, Site

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{{ first_name|upper|length }}{% endfor %}{% endfor %}"
RECIPIENTS = 100

pytestmark = pytest.mark.timeout(180)


async def test_a_looping_campaign_leaves_the_others_and_the_worker_alone(site: Site) -> None:
    looping = CAMPAIGN.replace("name: trial", "name: looping").replace("hello.txt", "looping.txt")
    (site.folder / "looping.txt").write_text(TEXT + LOOPS)
    path = site.write_campaign(RECIPIENTS, looping)
    async with site.context() as context:
        now = context.clock.now()
        apply(context.engine, context.settings, read_campaign(path, context.settings), now)
        import_file(context.engine, "readers", site.folder / "readers.csv", now)
        launch(context.engine, "looping", now)  # Its preflight would fail: it loops for every recipient.
        await submit(context, "looping", cursor=0, rows=5_000)
    await site.launch(RECIPIENTS)
    site.start("recorder")
    worker = site.start("worker")
    await site.until(lambda: len(site.received()) == RECIPIENTS, 90)
    assert await site.stop(worker) == 0
    async with site.context() as context:
        counts = await asyncio.to_thread(lambda: summary(context.engine, "looping").counts)
    assert counts[TouchState.ACCEPTED] == 0
