"""One real Prefect server, with a worker, for all tests of the room that need one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from postroad.local.prefect import PrefectApi, PrefectServer, choose_port
from postroad.local.processes import Supervisor

CHECKOUT = Path(__file__).parents[2]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrefectServer]:
    """A server on a free port, everything installed by the bootstrap, and one process worker."""
    state = tmp_path_factory.mktemp("house")
    server = PrefectServer(state=state, checkout=CHECKOUT, port=choose_port(preferred=0))
    async with Supervisor(state) as house:
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
    base_url = f"{server.api_url}/"
    async with httpx.AsyncClient(base_url=base_url, transport=Patient(), timeout=90.0) as http:
        yield http
