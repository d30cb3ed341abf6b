"""The form of a run: its explanations, and what it refuses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from postroad.errors import StateError, UsageError
from postroad.local.prefect_api import PrefectApi

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(180)]

DEPLOYMENTS = (
    "advance-campaigns",
    "bounces",
    "campaign",
    "dead-letters",
    "dns-health",
    "import-audience",
    "maintenance",
    "pause-campaigns",
    "warmup",
)


async def schema_of(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    deployment = (await http.get(f"deployments/name/{name}/{name}")).raise_for_status().json()
    schema: dict[str, Any] = deployment["parameter_openapi_schema"]
    return schema


async def runs_of_campaign(http: httpx.AsyncClient) -> int:
    found = await http.post("flow_runs/count", json={"deployments": {"name": {"any_": ["campaign"]}}})
    return int(found.raise_for_status().json())


@pytest.mark.parametrize(
    ("deployment", "model", "fields"),
    [
        ("campaign", "CampaignParams", {"campaign", "asked_by", "follow_seconds"}),
        ("import-audience", "ImportParams", {"audience", "path"}),
        ("dead-letters", "DeadLetterParams", {"queue", "cause", "wait_hours"}),
    ],
)
async def test_every_field_of_a_form_is_named_and_explained(
    http: httpx.AsyncClient, deployment: str, model: str, fields: set[str]
) -> None:
    properties = (await schema_of(http, deployment))["definitions"][model]["properties"]
    assert properties.keys() == fields
    for field in properties.values():
        assert field["title"]
        assert len(field["description"]) > 20


@pytest.mark.parametrize("name", DEPLOYMENTS)
async def test_every_deployment_says_what_it_does(http: httpx.AsyncClient, name: str) -> None:
    deployment = (await http.get(f"deployments/name/{name}/{name}")).raise_for_status().json()
    assert len(deployment["description"]) > 80
    assert deployment["enforce_parameter_schema"] is True


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"campaign": "Spring Sale!"}, "Spring Sale!"),
        ({"campaign": "welcome", "follow_seconds": -1}, "-1"),
        ({"campaign": "welcome", "follow": 30}, "follow"),
        ({}, "campaign"),
    ],
)
async def test_a_bad_value_is_refused_before_anything_runs(
    api: PrefectApi, http: httpx.AsyncClient, params: dict[str, Any], complaint: str
) -> None:
    before = await runs_of_campaign(http)
    deployment = (await http.get("deployments/name/campaign/campaign")).json()
    answer = await http.post(f"deployments/{deployment['id']}/create_flow_run", json={"parameters": {"params": params}})
    assert answer.status_code == httpx.codes.CONFLICT
    with pytest.raises(UsageError, match=complaint):
        await api.run_deployment("campaign/campaign", {"params": params})
    assert await runs_of_campaign(http) == before


async def test_the_same_idempotency_key_is_the_same_run(api: PrefectApi) -> None:
    wanted = {"params": {"campaign": "welcome"}}
    first = await api.run_deployment("campaign/campaign", wanted, idempotency_key="spring-1")
    assert await api.run_deployment("campaign/campaign", wanted, idempotency_key="spring-1") == first
    assert await api.run_deployment("campaign/campaign", wanted, idempotency_key="spring-2") != first


async def test_a_run_is_followed_to_its_end(api: PrefectApi) -> None:
    """Tests of the campaign flow check which state it is; this one checks that waiting returns it."""
    run_id = await api.run_deployment("campaign/campaign", {"params": {"campaign": "no-such-campaign"}})
    state = await api.follow(run_id, within_s=120)
    assert state.terminal
    assert not state.completed
    assert state.message
    assert api.url_of(run_id).endswith(f"/runs/flow-run/{run_id}")


async def test_a_deployment_that_is_not_installed_is_a_fault_of_the_state(api: PrefectApi) -> None:
    with pytest.raises(StateError, match=r"python -m deployments\.bootstrap"):
        await api.run_deployment("campaign/nothing", {})
