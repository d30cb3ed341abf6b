"""A worker that is killed between Pending and Running does not block the deployments that have one slot."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from deployments.automations import stuck_runs_crash
from postroad.local.flow_run import TERMINAL
from postroad.local.prefect_access import PrefectAuth
from postroad.local.prefect_server import PrefectServer, choose_port
from postroad.local.processes import Supervisor
from tests.kit.waiting import until
from tests.prefect.conftest import CHECKOUT, RetryTransport

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(400)]

SHORTEST_LEASE_S = 60
LONG_LEASE_S = 3600


class Site:
    """A server and a worker that the test may kill, and a deployment with one slot, as `maintenance` has."""

    def __init__(self, server: PrefectServer, supervisor: Supervisor, http: httpx.AsyncClient) -> None:
        self.server, self.supervisor, self.http = server, supervisor, http

    async def deploy(self, lease_s: int) -> str:
        flow = (await self.http.post("flows/", json={"name": "ticking"})).raise_for_status().json()
        made = await self.http.post(
            "deployments/",
            json={
                "name": f"tick-{uuid4()}",
                "flow_id": flow["id"],
                "entrypoint": "tests.prefect.ticking.tick",
                "work_pool_name": "postroad",
                "concurrency_limit": 1,
                "concurrency_options": {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": lease_s},
            },
        )
        return str(made.raise_for_status().json()["id"])

    async def run(self, deployment: str) -> str:
        made = await self.http.post(f"deployments/{deployment}/create_flow_run", json={"state": {"type": "SCHEDULED"}})
        return str(made.raise_for_status().json()["id"])

    async def state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = (await self.http.get(f"flow_runs/{run}")).raise_for_status().json()["state"]
        return state

    async def kill(self, name: str) -> None:
        [child] = [child for child in self.supervisor.children if child.name == name]
        child.signal_group(signal.SIGKILL)
        await self.supervisor.end(child)

    async def kill_worker_at_pending(self, deployment: str) -> str:
        """Kill the worker and its flow process once a run is Pending. Returns the run."""
        run = await self.run(deployment)

        async def pending() -> bool:
            return bool((await self.state(run))["type"] == "PENDING")

        await until(pending, within_s=60, every_s=0.1)
        await self.kill("prefect-worker")
        assert (await self.state(run))["type"] == "PENDING", "it was killed too late to show anything"
        return run

    async def start_worker(self) -> None:
        async with self.server.client() as api:
            await self.supervisor.start(self.server.worker_command(), ready=api.has_worker)

    async def tick(self, deployment: str) -> str:
        """Run the deployment and return the kind of state that the run ends in."""
        run = await self.run(deployment)

        async def ended() -> str:
            kind = str((await self.state(run))["type"])
            return kind if kind in TERMINAL else ""

        return await until(ended, within_s=90, every_s=0.5)


@pytest_asyncio.fixture
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    state = tmp_path_factory.mktemp("stuck")
    server = PrefectServer(state=state, files=CHECKOUT, port=choose_port(preferred=0))
    base_url, auth = f"{server.api_url}/", PrefectAuth(server.access().password)
    async with (
        Supervisor(state) as supervisor,
        httpx.AsyncClient(base_url=base_url, auth=auth, transport=RetryTransport(), timeout=90.0) as http,
    ):
        await server.start(supervisor)
        yield Site(server, supervisor, http)


async def automations(http: httpx.AsyncClient, name: str) -> list[dict[str, Any]]:
    wanted = {"automations": {"name": {"any_": [name]}}}
    found: list[dict[str, Any]] = (await http.post("automations/filter", json=wanted)).raise_for_status().json()
    return found


async def test_a_run_that_never_starts_is_crashed_and_the_next_one_runs(site: Site) -> None:
    shipped = stuck_runs_crash()
    assert [found["enabled"] for found in await automations(site.http, shipped.name)] == [True]
    hasty = stuck_runs_crash(within_s=30).model_copy(update={"name": "hasty"})
    made = (await site.http.post("automations/", json=hasty.model_dump(mode="json"))).raise_for_status().json()
    deployment = await site.deploy(LONG_LEASE_S)
    stuck = await site.kill_worker_at_pending(deployment)
    await site.start_worker()
    assert await site.tick(deployment) == "CANCELLED", "the stuck run holds the slot"

    async def crashed() -> bool:
        return bool((await site.state(stuck))["type"] == "CRASHED")

    await until(crashed, within_s=120, every_s=0.5)
    await site.http.delete(f"automations/{made['id']}")
    assert "did not start" in (await site.state(stuck))["message"]
    assert await site.tick(deployment) == "COMPLETED"


async def test_a_server_that_restarts_frees_the_slot_of_a_run_that_never_started(site: Site) -> None:
    [shipped] = await automations(site.http, stuck_runs_crash().name)
    (await site.http.patch(f"automations/{shipped['id']}", json={"enabled": False})).raise_for_status()
    deployment = await site.deploy(SHORTEST_LEASE_S)
    await site.kill_worker_at_pending(deployment)
    await site.kill("prefect-server")
    async with site.server.client() as api:
        await site.supervisor.start(site.server.server_command(), ready=api.is_ready, ready_within_s=90)
    await site.start_worker()

    async def next_tick_runs() -> bool:
        return await site.tick(deployment) == "COMPLETED"

    await until(next_tick_runs, within_s=SHORTEST_LEASE_S + 120, every_s=0.5)
