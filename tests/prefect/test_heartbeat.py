"""A run whose worker died says so, in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from deployments.automations import silent_runs_crash
from tests.kit.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240)]

HEARTBEAT_S = 4
"""Shorter than the 30 s that Prefect lets a real run beat: the server waits for three of them."""


@pytest_asyncio.fixture
async def automation(http: httpx.AsyncClient) -> AsyncIterator[None]:
    """The automation of the bootstrap, which loses patience sooner."""
    hasty = silent_runs_crash(HEARTBEAT_S).model_copy(update={"name": f"hasty {uuid4()}"})
    made = await http.post("automations/", json=hasty.model_dump(mode="json"))
    yield
    await http.delete(f"automations/{made.raise_for_status().json()['id']}")


async def start_run(http: httpx.AsyncClient) -> str:
    """A run that says it is running; nothing runs."""
    flow = (await http.post("flows/", json={"name": "heart"})).raise_for_status().json()
    run = await http.post("flow_runs/", json={"flow_id": flow["id"], "state": {"type": "RUNNING"}})
    return str(run.raise_for_status().json()["id"])


async def beat(http: httpx.AsyncClient, run_id: str) -> None:
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
    }
    (await http.post("events", json=[event])).raise_for_status()


async def state_of(http: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    state: dict[str, Any] = (await http.get(f"flow_runs/{run_id}")).raise_for_status().json()["state"]
    return state


@pytest.mark.usefixtures("automation")
async def test_a_run_that_stopped_beating_is_declared_crashed_and_no_other(http: httpx.AsyncClient) -> None:
    silent, living, done = [await start_run(http) for _ in range(3)]
    for run_id in (silent, living, done):
        await beat(http, run_id)
    completed = {"state": {"type": "COMPLETED"}, "force": True}
    (await http.post(f"flow_runs/{done}/set_state", json=completed)).raise_for_status()

    async def silent_has_crashed() -> bool:
        await beat(http, living)
        return bool((await state_of(http, silent))["type"] == "CRASHED")

    await until(silent_has_crashed, within_s=120, every_s=0.5)
    assert "No heartbeat" in (await state_of(http, silent))["message"]
    assert (await state_of(http, living))["type"] == "RUNNING"
    assert (await state_of(http, done))["type"] == "COMPLETED"
