"""`postroad campaign launch` checks before it says anything, and its exit code says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from postroad.store.campaign import CampaignState, find_campaign, record_launch_error, record_pause, set_state
from postroad.store.engine import write
from tests.end_to_end.site import CAMPAIGN, Site

pytestmark = pytest.mark.timeout(180)

NOW = datetime(2026, 5, 4, 8, 30, tzinfo=UTC)


@pytest.fixture
def site(site: Site) -> Site:
    site.variables["PREFECT_API_URL"] = "http://127.0.0.1:9/api"  # There is no Prefect: a launch that is begun fails.
    return site


def refused(site: Site, code: int, *arguments: str) -> str:
    done = site.run("campaign", "launch", "trial", *arguments, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == "" or "--dry-run" in arguments
    return done.stderr


async def in_state(site: Site, state: CampaignState, *, by: str | None = None, run_id: str | None = None) -> None:
    async with site.context() as context:
        with write(context.engine) as connection:
            campaign_id = find_campaign(connection, "trial").id
            assert campaign_id is not None
            if by is None:
                set_state(connection, campaign_id, state)
            else:
                record_pause(connection, campaign_id, by=by, run_id=run_id, now=NOW)


def applied(site: Site) -> None:
    site.run("campaign", "apply", str(site.write_campaign(3)))


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--json"]])
async def test_a_campaign_that_does_not_exist_is_exit_code_7(site: Site, arguments: list[str]) -> None:
    assert "there is no campaign named 'trial'" in refused(site, 7, *arguments)


async def test_a_campaign_that_fails_preflight_is_exit_code_5(site: Site) -> None:
    path = site.write_campaign(3)
    (site.folder / "hello.txt").write_text("There is no way out of this.\n")
    site.run("campaign", "apply", str(path))
    assert "unsubscribe" in refused(site, 5)
    assert "unsubscribe" in refused(site, 5, "--dry-run")
    error = json.loads(refused(site, 5, "--json"))["error"]
    assert error["code"] == 5


@pytest.mark.parametrize("state", [CampaignState.FINISHED, CampaignState.CANCELLED])
async def test_a_campaign_that_has_ended_is_exit_code_7(site: Site, state: CampaignState) -> None:
    applied(site)
    await in_state(site, state)
    assert f"campaign trial is {state}, so it cannot be launched" in refused(site, 7)


async def test_a_campaign_that_a_person_paused_is_exit_code_7(site: Site) -> None:
    applied(site)
    await in_state(site, CampaignState.PAUSED, by="`postroad campaign pause`")
    assert "campaign trial is paused by `postroad campaign pause`" in refused(site, 7)
    await in_state(site, CampaignState.PAUSED, by="its Prefect run", run_id="1" * 36)
    assert "Prefect" in refused(site, 6), "what a stopped run paused may be launched"


@pytest.mark.parametrize("prepare", [applied, lambda site: None], ids=["file not imported", "audience imported"])
async def test_a_campaign_that_may_be_launched_needs_prefect(site: Site, prepare: Callable[[Site], None]) -> None:
    if prepare is applied:
        prepare(site)
        shown = site.run("campaign", "launch", "trial", "--dry-run").stdout
        assert "The launch imports" in shown
        assert "3 would get it" in shown
    else:
        path = site.write_campaign(3, CAMPAIGN.replace(", file: readers.csv", ""))
        site.run("audience", "import", "readers", str(site.folder / "readers.csv"))
        site.run("campaign", "apply", str(path))
        assert "3 would get it" in site.run("campaign", "launch", "trial", "--dry-run").stdout
    assert "Prefect does not answer" in refused(site, 6)


async def test_an_empty_audience_is_exit_code_5(site: Site) -> None:
    site.run("campaign", "apply", str(site.write_campaign(3, CAMPAIGN.replace(", file: readers.csv", ""))))
    assert "is empty" in refused(site, 5)


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
async def test_an_audience_file_that_is_gone_is_exit_code_5(site: Site, arguments: list[str]) -> None:
    applied(site)
    (site.folder / "readers.csv").unlink()
    said = refused(site, 5, *arguments)
    assert "readers.csv" in said
    assert "the file of its audience is not readable" in said


async def test_status_says_why_the_last_launch_failed_and_who_paused(site: Site) -> None:
    applied(site)
    async with site.context() as context:
        with write(context.engine) as connection:
            record_launch_error(connection, "trial", "the route is not in postroad.toml", NOW)
    await in_state(site, CampaignState.PAUSED, by="its Prefect run 7, which was cancelled")
    said = site.run("campaign", "status", "trial").stdout
    assert "the launch at 2026-05-04 08:30:00 UTC failed: the route is not in postroad.toml" in said
    assert "paused since 2026-05-04 08:30:00 UTC by its Prefect run 7, which was cancelled" in said
    assert "`postroad campaign resume trial` resumes it" in said
