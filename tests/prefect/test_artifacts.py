"""What runs show is renewed while mail goes out, and grows only where something changed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from postroad.campaign.status import CampaignSummary
from tasks.report import ProgressBar, publish_table, renew_table
from tasks.result import publish_result, renew_result
from tests.prefect.test_tasks import summary_of as summary

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("prefect_client_settings"),
    # Prefect's flow engine leaves sockets open in this process, so artifacts are made without one.
    pytest.mark.filterwarnings("ignore:Artifact creation outside:FutureWarning"),
]


def summary_of(name: str, accepted: int, queued: int) -> CampaignSummary:
    return replace(summary(accepted=accepted, queued=queued), campaign=name)


async def show(campaign: str) -> None:
    """What the run of a campaign shows at its end."""
    await ProgressBar.open(f"delivery-{campaign}", "…")
    await publish_result(summary_of(campaign, accepted=1, queued=3))


async def check_a_sender(new: int) -> None:
    await publish_table("only-changes", [{"sender": "ada", "new": new}], "A table.", only_changes=True)


async def versions(http: httpx.AsyncClient, key: str) -> list[Any]:
    found = await http.post("artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}, "sort": "UPDATED_DESC"})
    return [artifact["data"] for artifact in found.raise_for_status().json()]


async def test_a_result_is_renewed_in_place_while_mail_goes_out(http: httpx.AsyncClient) -> None:
    await show("renewed")
    assert await versions(http, "delivery-renewed") == [0.0]
    await renew_result(summary_of("renewed", accepted=3, queued=1))
    assert await versions(http, "delivery-renewed") == [75.0]
    [table] = await versions(http, "completeness-renewed")
    assert {"step": "hello", "state": "accepted", "people": 3, "percent": 75.0} in json.loads(table)
    [text] = await versions(http, "result-renewed")
    assert "**1** messages are still under way" in text
    assert "`postroad" not in text
    latest = (await http.get("artifacts/completeness-renewed/latest")).raise_for_status().json()
    assert latest["data"] == table


async def test_a_campaign_whose_run_showed_nothing_gets_nothing(http: httpx.AsyncClient) -> None:
    await renew_result(summary_of("never-shown", accepted=1, queued=0))
    assert await versions(http, "completeness-never-shown") == []


async def test_a_table_that_did_not_change_is_not_published_again(http: httpx.AsyncClient) -> None:
    for new in (1, 1, 2):
        await check_a_sender(new)
    assert len(await versions(http, "only-changes")) == 2
    assert await renew_table("only-changes", [{"sender": "ada", "new": 3}], "A table.")
    assert len(await versions(http, "only-changes")) == 2
    assert not await renew_table("not-there", [], "A table.")
