"""A repeated installation keeps changes of the UI and deletes what the file no longer has."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from deployments.automations import stuck_runs_crash
from deployments.bootstrap import bootstrap
from deployments.spec import ProjectSpec, ScheduleSpec, read
from postroad.local.prefect_server import PrefectServer

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240), pytest.mark.usefixtures("prefect_client_settings")]

CHECKOUT = Path(__file__).parents[2]
PROJECT = read(CHECKOUT / "prefect.yaml")
CAMPAIGN = "deployments/name/campaign/campaign"

# Fields that differ in each installation of the same content.
VOLATILE = {
    "id",
    "active_slots",
    "created",
    "updated",
    "created_by",
    "updated_by",
    "last_polled",
    "status",
    "deployment_id",
    "labels",
    # In a checkout `prefect deploy` names the commit, and otherwise a digest of the flow's file.
    "version",
    "version_id",
    "version_info",
}


@pytest_asyncio.fixture
async def schedules_put_back(prefect_client_settings: None) -> AsyncIterator[None]:
    """Afterwards install the schedules of prefect.yaml: first none, because a change by the UI would stay."""
    yield
    await bootstrap(with_schedules())
    await bootstrap(PROJECT)


def with_schedules(*schedules: ScheduleSpec) -> ProjectSpec:
    """The project with these schedules of `campaign`, and with no other deployment touched."""
    changed = [
        spec.model_copy(update={"schedules": list(schedules)}) if spec.name == "campaign" else spec
        for spec in PROJECT.deployments
    ]
    return PROJECT.model_copy(update={"deployments": changed})


def schedule(slug: str, cron: str = "0 6 * * *", *, active: bool = True) -> ScheduleSpec:
    return ScheduleSpec(slug=slug, cron=cron, timezone="Europe/Berlin", active=active)


def stable(value: Any) -> Any:
    """Return the value without volatile fields, at every depth."""
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if k not in VOLATILE}
    if isinstance(value, list):
        return [stable(v) for v in value]
    return value


async def everything(http: httpx.AsyncClient) -> dict[str, list[Any]]:
    """Everything that an installation creates, by kind, sorted by name."""
    kinds = {
        "deployments": "deployments/filter",
        "limits": "v2/concurrency_limits/filter",
        "pools": "work_pools/filter",
        "automations": "automations/filter",
        "variables": "variables/filter",
    }
    found = {}
    for kind, path in kinds.items():
        rows = (await http.post(path, json={})).raise_for_status().json()
        found[kind] = sorted(stable(rows), key=lambda row: str(row["name"]))
    return found


async def schedules_of_campaign(http: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    deployment = (await http.get(CAMPAIGN)).raise_for_status().json()
    return {found["slug"]: found for found in deployment["schedules"]}


async def change_in_ui(http: httpx.AsyncClient, slug: str, change: dict[str, Any]) -> None:
    """Change a schedule as the UI does."""
    found = (await schedules_of_campaign(http))[slug]
    path = f"deployments/{found['deployment_id']}/schedules/{found['id']}"
    (await http.patch(path, json=change)).raise_for_status()


def prefect_deploy_all(server: PrefectServer) -> None:
    """Run `prefect deploy --all`."""
    subprocess.run(
        [sys.executable, "-m", "prefect", "deploy", "--all"],
        cwd=CHECKOUT,
        env=server.environment(),
        check=True,
        capture_output=True,
    )


async def test_installing_twice_is_installing_once(http: httpx.AsyncClient) -> None:
    before = await everything(http)
    names = ["advance-campaigns", "bounces", "campaign", "dead-letters", "dns-health", "import-audience"]
    names += ["maintenance", "pause-campaigns", "warmup"]
    assert [d["name"] for d in before["deployments"]] == names
    assert len(before["automations"]) == 3
    assert {"campaign-process", "campaign-process-rate", "dns-check"} <= {limit["name"] for limit in before["limits"]}
    await bootstrap(PROJECT)
    assert await everything(http) == before


async def test_prefect_deploy_changes_nothing_when_repeated(http: httpx.AsyncClient, server: PrefectServer) -> None:
    before = await everything(http)
    for _ in range(2):
        await asyncio.to_thread(prefect_deploy_all, server)
        assert await everything(http) == before


@pytest.mark.usefixtures("schedules_put_back")
async def test_a_schedule_turned_on_or_off_in_the_ui_stays_so(http: httpx.AsyncClient) -> None:
    await bootstrap(with_schedules(schedule("morning"), schedule("example", active=False)))
    await change_in_ui(http, "morning", {"active": False})
    await change_in_ui(http, "example", {"active": True})
    # The file says something new about the hour, and nothing new about whether.
    await bootstrap(with_schedules(schedule("morning", "0 7 * * *"), schedule("example", active=False)))
    found = await schedules_of_campaign(http)
    assert found["morning"]["active"] is False
    assert found["morning"]["schedule"]["cron"] == "0 7 * * *"
    assert found["example"]["active"] is True


@pytest.mark.usefixtures("schedules_put_back")
async def test_an_hour_chosen_in_the_ui_stays(http: httpx.AsyncClient) -> None:
    await bootstrap(with_schedules(schedule("morning")))
    await change_in_ui(http, "morning", {"schedule": {"cron": "0 11 * * *", "timezone": "Europe/Berlin"}})
    await bootstrap(with_schedules(schedule("morning", "0 7 * * *")))
    assert (await schedules_of_campaign(http))["morning"]["schedule"]["cron"] == "0 11 * * *"


@pytest.mark.usefixtures("schedules_put_back")
async def test_a_slug_missing_from_the_file_is_deleted_and_no_other(http: httpx.AsyncClient) -> None:
    await bootstrap(with_schedules(schedule("morning"), schedule("evening")))
    deployment = (await http.get(CAMPAIGN)).raise_for_status().json()
    without_slug = {"schedule": {"cron": "0 12 * * *", "timezone": "UTC"}, "active": True}
    (await http.post(f"deployments/{deployment['id']}/schedules", json=[without_slug])).raise_for_status()
    await bootstrap(with_schedules(schedule("evening")))
    found = (await http.get(CAMPAIGN)).raise_for_status().json()["schedules"]
    assert sorted(str(s["slug"]) for s in found) == ["None", "evening"]
    noon = next(s for s in found if s["slug"] is None)
    (await http.delete(f"deployments/{deployment['id']}/schedules/{noon['id']}")).raise_for_status()


async def test_an_automation_turned_off_in_the_ui_stays_off(http: httpx.AsyncClient) -> None:
    wanted = {"automations": {"name": {"any_": [stuck_runs_crash().name]}}}
    (automation,) = (await http.post("automations/filter", json=wanted)).raise_for_status().json()
    for enabled in (False, True):
        (await http.patch(f"automations/{automation['id']}", json={"enabled": enabled})).raise_for_status()
        await bootstrap(PROJECT)
        (found,) = (await http.post("automations/filter", json=wanted)).raise_for_status().json()
        assert found["enabled"] is enabled
        assert found["id"] == automation["id"]
