"""`postroad advance` carries campaigns on while Prefect is down, and the age of the last pass is served."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
import pytest

from postroad.local.prefect_server import choose_port
from postroad.store.campaign import CampaignState
from postroad.store.ledger import TouchState
from tests.end_to_end.site import Site
from tests.end_to_end.test_outcomes import SEQUENCE
from tests.kit.waiting import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def site(site: Site) -> Site:
    site.variables["PREFECT_API_URL"] = "http://127.0.0.1:9/api"  # There is no Prefect.
    return site


async def test_advance_plans_hands_over_and_finishes_without_prefect(site: Site) -> None:
    await site.launch(["a@mailbox.example", "b@mailbox.example"], SEQUENCE)
    site.start("recorder")
    site.start("worker")
    await site.until_settled()
    assert site.json("advance") == {
        "campaigns": [{"campaign": "trial", "planned": 2, "submitted": 2, "finished": False}],
        "failed": [],
    }
    await site.until_settled()
    assert set(site.received().values()) == {1}
    assert len(site.received()) == 4

    async def finished() -> bool:
        site.run("advance")
        return (await site.summary()).state is CampaignState.FINISHED

    await until(finished, within_s=30)
    assert "no campaign is running" in site.run("advance").stdout


async def test_advance_hands_over_what_was_planned_and_twice_is_once(site: Site) -> None:
    await site.launch(["a@mailbox.example"], SEQUENCE)
    for _ in range(2):
        site.run("advance")
    site.start("recorder")
    site.start("worker")
    assert await site.until_settled() == {TouchState.ACCEPTED: 1}


async def test_a_campaign_that_fails_does_not_hold_up_the_others(site: Site) -> None:
    await site.launch(["a@mailbox.example"], SEQUENCE)
    await asyncio.to_thread(site.redis.kill)
    failed = site.run("advance", "--json", check=False)
    assert failed.returncode == 6
    assert '"campaign": "trial", "error": ' in failed.stdout
    assert '"code": 6' in failed.stderr


async def test_the_recorder_serves_the_age_of_the_last_pass(site: Site) -> None:
    site.write_campaign(1)
    port = choose_port(preferred=0)
    site.run("advance")
    site.start("recorder", "--metrics-port", str(port))

    async def age() -> float | None:
        try:
            async with httpx.AsyncClient() as http:
                text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        except httpx.TransportError:
            return None
        found = re.search(r"^postroad_last_advance_age_seconds (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    async def old_enough() -> float:
        seconds = await age()
        return seconds if seconds is not None and seconds > 4 else 0.0

    first = await until(old_enough, within_s=60)
    assert first < 120
    since_s = time.monotonic()
    site.run("advance")

    async def of_the_second_pass() -> bool:
        seconds = await age()
        return seconds is not None and seconds < time.monotonic() - since_s + first / 2

    await until(of_the_second_pass, within_s=60)
