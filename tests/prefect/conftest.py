"""One real Prefect server with a worker, which the tests of this package share."""

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

from postroad.local.prefect_access import HOST, PrefectAccess, PrefectAuth
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_server import HEARTBEAT_S, STARTS_WITHIN_S, VACUUM, PrefectServer, choose_port
from postroad.local.processes import Command, Supervisor

CHECKOUT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrefectServer]:
    """A server on a free port, everything installed by the bootstrap, and one process worker."""
    state = tmp_path_factory.mktemp("server")
    server = PrefectServer(state=state, files=CHECKOUT, port=choose_port(preferred=0))
    async with Supervisor(state) as supervisor:
        with pytest.MonkeyPatch.context() as patch:
            # For its processes only, because the bootstrap lists the campaigns of the database.
            patch.setenv("POSTROAD_STATE_DIR", str(state))
            await server.start(supervisor)
        yield server


@pytest_asyncio.fixture
async def api(server: PrefectServer) -> AsyncIterator[PrefectApi]:
    async with server.client() as api:
        yield api


class RetryTransport(httpx.AsyncHTTPTransport):
    """Repeats a request after a 503: another writer of Prefect's SQLite was first, and nothing was done."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        while True:
            answer = await super().handle_async_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
            await answer.aclose()
            await asyncio.sleep(0.2)


@pytest_asyncio.fixture
async def http(server: PrefectServer) -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP API, as the UI calls it."""
    base_url, auth = f"{server.api_url}/", PrefectAuth(server.access().password)
    async with httpx.AsyncClient(base_url=base_url, auth=auth, transport=RetryTransport(), timeout=90.0) as http:
        yield http


@pytest.fixture
def prefect_client_settings(server: PrefectServer) -> Iterator[None]:
    """Let Prefect's own client use the server, with the settings of the deployment command."""
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
    """Name of a pool with Prefect's own job template and a worker, whose runs may have settings of their own."""
    options = ("--pool", "own-settings", "--type", "process", "--name", "own-settings")
    worker = Command(
        name="worker",
        argv=[sys.executable, "-m", "prefect", "worker", "start", *options],
        env=server.environment(),
        cwd=CHECKOUT,
    )
    async with Supervisor(tmp_path_factory.mktemp("own-settings")) as supervisor, server.client() as api:
        await supervisor.start(worker, ready=lambda: api.has_worker("own-settings"))
        yield "own-settings"
    async with server.access().http(60.0) as http:
        of_pool = {"work_pools": {"name": {"any_": ["own-settings"]}}}
        for made in (await http.post("/deployments/filter", json=of_pool)).raise_for_status().json():
            (await http.delete(f"/deployments/{made['id']}")).raise_for_status()
        (await http.delete("/work_pools/own-settings")).raise_for_status()


@dataclass(frozen=True)
class StockServer:
    """A Prefect server with Prefect's defaults: no password, no pool, no deployment.

    ``environment``: that of its clients.
    """

    access: PrefectAccess
    environment: dict[str, str]


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StockServer]:
    """A server that `prefect server start` started on a fresh database."""
    state = tmp_path_factory.mktemp("stock")
    ours = PrefectServer(state=state, files=CHECKOUT, port=choose_port(preferred=0))
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
