"""The scheduler creates scheduled runs. With some releases of SQLAlchemy or FastAPI, Prefect creates none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from postroad.local.prefect_pool import POOL
from tests.kit.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(240)]

EVERY_S = 5


@pytest_asyncio.fixture
async def ticking(http: httpx.AsyncClient) -> AsyncIterator[str]:
    """Id of a deployment that is due every few seconds."""
    flow = (await http.post("flows/", json={"name": "ticking"})).raise_for_status().json()
    interval = {"interval": EVERY_S, "timezone": "UTC"}
    made = await http.post(
        "deployments/",
        json={
            "name": "every-few-seconds",
            "flow_id": flow["id"],
            "entrypoint": "tests.prefect.ticking.tick",
            "work_pool_name": POOL,
            "schedules": [{"schedule": interval, "active": True}],
        },
    )
    deployment_id = made.raise_for_status().json()["id"]
    yield deployment_id
    await http.delete(f"deployments/{deployment_id}")


async def runs_of(http: httpx.AsyncClient, deployment_id: str, kind: str) -> list[dict[str, Any]]:
    wanted = {"flow_runs": {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": [kind]}}}}
    found: list[dict[str, Any]] = (await http.post("flow_runs/filter", json=wanted)).raise_for_status().json()
    return found


async def test_a_scheduled_run_appears_and_a_process_worker_runs_it(http: httpx.AsyncClient, ticking: str) -> None:
    scheduled = await until(lambda: runs_of(http, ticking, "SCHEDULED"), within_s=90, every_s=0.5)
    assert all(run["auto_scheduled"] for run in scheduled)
    assert scheduled[0]["state"]["name"] in {"Scheduled", "Late"}

    completed = await until(lambda: runs_of(http, ticking, "COMPLETED"), within_s=120, every_s=0.5)
    history = (await http.get("flow_run_states/", params={"flow_run_id": completed[0]["id"]})).json()
    first, *_, running, last = (state["type"] for state in history)
    assert (first, running, last) == ("SCHEDULED", "RUNNING", "COMPLETED")
    assert completed[0]["infrastructure_pid"]
