"""One real Prefect server, with a worker, for all tests of the room that need one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from postroad.local.prefect import HEARTBEAT_S, STARTS_WITHIN_S, VACUUM, PrefectApi, PrefectServer, choose_port
from postroad.local.prefect_access import HOST, PrefectAccess, PrefectAuth
from postroad.local.processes import Command, Supervisor

CHECKOUT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrefectServer]:
    """A server on a free port, everything installed by the bootstrap, and one process worker."""
    state = tmp_path_factory.mktemp("house")
    server = PrefectServer(state=state, checkout=CHECKOUT, port=choose_port(preferred=0))
    async with Supervisor(state) as house:
        with pytest.MonkeyPatch.context() as patch:
            # Of its processes alone: the bootstrap lists the campaigns of the ledger. Tests have folders of their own.
            patch.setenv("POSTROAD_STATE_DIR", str(state))
            await server.start(house)
        yield server


@pytest_asyncio.fixture
async def api(server: PrefectServer) -> AsyncIterator[PrefectApi]:
    async with server.client() as api:
        yield api


class Patient(httpx.AsyncHTTPTransport):
    """Asks again after a 503: another writer of Prefect's SQLite was first, and nothing was done."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        while True:
            answer = await super().handle_async_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
            await answer.aclose()
            await asyncio.sleep(0.2)


@pytest_asyncio.fixture
async def http(server: PrefectServer) -> AsyncIterator[httpx.AsyncClient]:
    """The bare HTTP API, to look at what a user of the UI would see."""
    base_url, auth = f"{server.api_url}/", PrefectAuth(server.access().password)
    async with httpx.AsyncClient(base_url=base_url, auth=auth, transport=Patient(), timeout=90.0) as http:
        yield http


@pytest.fixture
def prefect_client_settings(server: PrefectServer) -> Iterator[None]:
    """Prefect's own client speaks to the server as the server's deployment command does."""
    password = server.access().password
    settings = {
        PREFECT_API_URL: server.api_url,
        PREFECT_API_AUTH_STRING: password,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_S,
    }
    with temporary_settings(settings):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def open_pool(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Name of a pool with Prefect's own job template, and a worker: its runs may have settings of their own.

    Afterwards the pool and its deployments are gone.
    """
    options = ("--pool", "own-settings", "--type", "process", "--name", "own-settings")
    worker = Command(
        name="worker",
        argv=[sys.executable, "-m", "prefect", "worker", "start", *options],
        env=server.environment(),
        cwd=CHECKOUT,
    )
    async with Supervisor(tmp_path_factory.mktemp("own-settings")) as house, server.client() as api:
        await house.start(worker, ready=lambda: api.has_worker("own-settings"))
        yield "own-settings"
    async with server.access().http(60.0) as http:
        of_pool = {"work_pools": {"name": {"any_": ["own-settings"]}}}
        for made in (await http.post("/deployments/filter", json=of_pool)).raise_for_status().json():
            (await http.delete(f"/deployments/{made['id']}")).raise_for_status()
        (await http.delete("/work_pools/own-settings")).raise_for_status()


@dataclass(frozen=True)
class StockServer:
    """A Prefect server as Prefect comes: no password, no pool, no deployment. ``environment``: that of its clients."""

    access: PrefectAccess
    environment: dict[str, str]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StockServer]:
    """What `prefect server start` starts on a fresh database."""
    state = tmp_path_factory.mktemp("stock")
    ours = PrefectServer(state=state, checkout=CHECKOUT, port=choose_port(preferred=0))
    protection = ("_AUTH_STRING", "_CSRF_PROTECTION_ENABLED", "_CORS_ALLOWED_ORIGINS", *VACUUM)
    environment = {name: value for name, value in ours.environment().items() if not name.endswith(protection)}
    command = Command(
        name="stock-prefect",
        argv=[sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(ours.port)],
        env=environment,
        cwd=CHECKOUT,
    )
    access = PrefectAccess(url=ours.url)
    async with Supervisor(state) as supervisor, PrefectApi(access) as api:
        await supervisor.start(command, ready=api.is_ready, ready_within_s=STARTS_WITHIN_S)
        yield StockServer(access, environment)
