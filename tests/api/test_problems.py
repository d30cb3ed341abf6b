"""An error that is not expected is a problem, wherever it happens."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from postroad.api.problems import MEDIA_TYPE, add_handlers
from tests.api.server import served


@pytest.mark.parametrize("path", ["/messages/4711", "/nothing"])
async def test_a_failure_before_any_route_matches_is_answered_and_logged(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    add_handlers(app)

    @app.middleware("http")
    async def fail(_request: Request, _next: Callable[[Request], Awaitable[Response]]) -> Response:
        raise RuntimeError("it broke")

    caplog.set_level(logging.ERROR)
    async with served(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA_TYPE)
    assert answer.json()["type"] == "urn:postroad:problem:internal"
    [record] = [record for record in caplog.records if record.name == "postroad.api.problems"]
    assert record.getMessage() == "GET a path without a route failed"


async def test_a_failure_of_a_route_is_logged_with_the_path_of_the_route(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    add_handlers(app)

    @app.get("/recipients/{address}")
    async def fail(address: str) -> None:
        raise RuntimeError(address)

    caplog.set_level(logging.ERROR)
    async with served(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/recipients/ada@example.org")).status_code == 500
        assert (await http.get("/nothing")).json()["type"] == "urn:postroad:problem:not-found"
    [record] = [record for record in caplog.records if record.name == "postroad.api.problems"]
    assert record.getMessage() == "GET /recipients/{address} failed"
