"""No call without a key, each scope refused what it may not, and bounds of every request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from postroad.api.access import ApiRoute
from postroad.api.app import MOUNT_PATH, ROUTERS, create_routes, openapi
from postroad.api.problems import MEDIA_TYPE, PROBLEMS, ProblemKind
from postroad.settings import AccessRole, RateSetting
from postroad.store.api_key import revoke_key
from postroad.store.engine import read, write
from tests.api.installation import NEWS, Installation
from tests.api.server import ApiServer, an_api_server

EXAMPLES = {
    "name": "news",
    "address": "ada@example.org",
    "id": "1",
    "flow_run": "00000000-0000-4000-8000-000000000000",
    "endpoint": "shop",
}


def calls() -> Iterator[tuple[str, str, AccessRole]]:
    """Method, path and scope of every route of the application."""
    described = openapi(create_routes())["paths"]
    for path, operations in described.items():
        for method, operation in operations.items():
            yield method.upper(), path.format(**EXAMPLES), AccessRole(operation["x-scope"])
    yield "GET", "/openapi.json", AccessRole.VIEW


def test_every_route_is_one_that_declares_its_scope() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    assert all(isinstance(route, ApiRoute) for route in routes)
    assert len(routes) == len(list(calls())) - 1
    assert {scope for _, _, scope in calls()} == {AccessRole.VIEW, AccessRole.SEND, AccessRole.OPERATE}


def problem(answer: httpx.Response, kind: ProblemKind) -> dict[str, object]:
    status, title = PROBLEMS[kind]
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    body: dict[str, object] = answer.json()
    assert body["type"] == f"urn:postroad:problem:{kind}"
    assert body["title"] == title
    assert body["status"] == status
    assert body["detail"]
    return body


async def test_no_route_answers_without_a_valid_key(api: ApiServer) -> None:
    secret = api.key(AccessRole.OWN)
    with write(api.installation.engine) as connection:
        revoke_key(connection, "key-own", api.installation.context.clock.now())
    wrong = [{}, {"Authorization": f"Bearer {secret}"}, {"Authorization": f"Basic {secret}"}]
    async with api.client(None) as http:
        for number, (method, path, _) in enumerate(calls()):
            answer = await http.request(method, path, headers=wrong[number % len(wrong)], content=b"not JSON")
            problem(answer, ProblemKind.UNAUTHORIZED)
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_each_scope_is_refused_what_it_may_not(api: ApiServer) -> None:
    ranks = list(AccessRole)
    refused = 0
    for scope in (AccessRole.VIEW, AccessRole.SEND):
        async with api.client(scope) as http:
            for method, path, needed in calls():
                answer = await http.request(method, path, content=b"not JSON")
                if ranks.index(scope) < ranks.index(needed):
                    problem(answer, ProblemKind.FORBIDDEN)
                    refused += 1
                else:
                    assert answer.status_code not in (401, 403), (method, path)
    assert refused > 10


async def test_a_key_and_its_limits_are_in_headers_and_never_in_logs(
    api: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with api.client(AccessRole.VIEW) as http:
        answer = await http.get("/campaigns")
        await http.get("/campaigns/none")
    assert answer.headers["ratelimit-policy"] == '"key";q=1200;w=60'
    assert answer.headers["ratelimit"] == '"key";r=1199;t=1'
    assert api.key(AccessRole.VIEW) not in caplog.text
    assert api.key(AccessRole.VIEW).split("_", 2)[2] not in caplog.text


async def test_a_key_that_asks_too_often_waits(installation: Installation) -> None:
    limited = installation.context.settings.api.model_copy(update={"rate": RateSetting(count=2, per_ms=60_000)})
    installation.context.settings = installation.context.settings.model_copy(update={"api": limited})
    async with an_api_server(installation) as api, api.client() as http:
        for _ in range(2):
            assert (await http.get("/campaigns")).status_code == 200
        answer = await http.get("/campaigns")
        problem(answer, ProblemKind.RATE_LIMITED)
        assert int(answer.headers["retry-after"]) in range(1, 61)
        assert answer.headers["ratelimit"].startswith('"key";r=0;')
        async with api.client(AccessRole.VIEW) as other:
            assert (await other.get("/campaigns")).status_code == 200, "another key has a limit of its own"


async def test_guesses_of_keys_are_limited(api: ApiServer) -> None:
    async with api.client(None, Authorization="Bearer pr_000000000000_" + "x" * 43) as http:
        answers = await asyncio.gather(*(http.get("/campaigns") for _ in range(70)))
        assert {answer.status_code for answer in answers} == {401, 429}
    async with api.client(AccessRole.VIEW) as http:
        assert (await http.get("/campaigns")).status_code == 200, "a valid key of the same address does not wait"


@pytest.mark.parametrize(
    ("path", "kind", "field"),
    [
        ("/campaigns?limt=1", ProblemKind.INVALID, "limt"),
        ("/campaigns?limit=1&limit=2", ProblemKind.INVALID, "limit"),
        ("/campaigns?limit=0", ProblemKind.INVALID, "limit"),
        ("/campaigns?limit=1001", ProblemKind.INVALID, "limit"),
        ("/campaigns?state=old", ProblemKind.INVALID, "state"),
        ("/campaigns?cursor=x", ProblemKind.INVALID, "cursor"),
        ("/campaigns?cursor=%00", ProblemKind.INVALID, "cursor"),
        ("/campaigns/%00", ProblemKind.INVALID, "name"),
        ("/campaigns/none", ProblemKind.NOT_FOUND, None),
        ("/messages/99", ProblemKind.NOT_FOUND, None),
        ("/messages/0", ProblemKind.INVALID, "id"),
        ("/messages/99999999999999999999", ProblemKind.INVALID, "id"),
        ("/nothing", ProblemKind.NOT_FOUND, None),
        ("/explain?subject=%20", ProblemKind.INVALID, None),
        ("/recipients/none", ProblemKind.INVALID, "address"),
        ("/recipients/ada@example.org", ProblemKind.NOT_FOUND, None),
    ],
)
async def test_a_request_that_is_not_valid_is_a_problem(
    api: ApiServer, path: str, kind: ProblemKind, field: str | None
) -> None:
    async with api.client() as http:
        body = problem(await http.get(path), kind)
    errors = body.get("errors", [])
    assert isinstance(errors, list)
    assert [error["field"] for error in errors] == ([field] if field else [])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", ProblemKind.BAD_REQUEST),
        (b"\xff", ProblemKind.BAD_REQUEST),
        (b'{"events": "\\ud800"}', ProblemKind.BAD_REQUEST),
        (b"[" * 100_000, ProblemKind.BAD_REQUEST),
        *((b"[" * depth + b'"\\u0000"' + b"]" * depth, ProblemKind.BAD_REQUEST) for depth in (500, 900)),
        (b'{"events": []}', ProblemKind.INVALID),
        (b'{"events": [], "more": 1}', ProblemKind.INVALID),
        (b'{"events": [{"address": "a@example.org", "name": "\\u0000"}]}', ProblemKind.INVALID),
        (b'{"events": [' + b" " * 10_000_001 + b"]}", ProblemKind.TOO_LARGE),
    ],
)
async def test_a_body_that_is_not_valid_is_a_problem(api: ApiServer, content: bytes, kind: ProblemKind) -> None:
    async with api.client() as http:
        answer = await http.post("/events", content=content, headers={"Content-Type": "application/json"})
    problem(answer, kind)


async def test_a_cursor_belongs_to_its_list_and_parameters(api: ApiServer) -> None:
    for number in range(3):
        api.installation.apply(NEWS.replace("name: news", f"name: news-{number}"))
    async with api.client() as http:
        first = (await http.get("/campaigns", params={"limit": 2})).json()
        assert [row["name"] for row in first["items"]] == ["news-0", "news-1"]
        second = (await http.get("/campaigns", params={"limit": 2, "cursor": first["next"]})).json()
        assert [row["name"] for row in second["items"]] == ["news-2"]
        assert second["next"] is None
        for path, more in (("/audiences", {}), ("/campaigns", {"state": "draft"})):
            problem(await http.get(path, params={"cursor": first["next"], **more}), ProblemKind.INVALID)
        changed = first["next"][:-2] + ("AA" if first["next"][-2:] != "AA" else "BB")
        problem(await http.get("/campaigns", params={"cursor": changed}), ProblemKind.INVALID)


async def test_an_act_that_fails_leaves_no_record(api: ApiServer) -> None:
    def records() -> list[tuple[str, str, str]]:
        with read(api.installation.engine) as connection:
            rows = connection.execute(sa.text("SELECT actor, action, target FROM audit_record ORDER BY id")).all()
        return [(row.actor, row.action, row.target) for row in rows]

    api.installation.launch(NEWS)
    async with api.client(AccessRole.OPERATE) as http:
        assert (await http.post("/campaigns/none/pause")).status_code == 404
        assert records() == []
        assert (await http.post("/campaigns/news/pause")).json() == {"campaign": "news", "state": "paused"}
        problem(await http.post("/campaigns/news/pause"), ProblemKind.CONFLICT)
    assert records() == [("key key-operate", "campaign.pause", "news")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_act_that_waits_for_the_database_keeps_no_other_request_waiting(api: ApiServer) -> None:
    api.installation.launch(NEWS)
    async with api.client(AccessRole.OPERATE) as http:
        assert (await http.get("/campaigns/news")).status_code == 200
        await asyncio.to_thread((locked := write(api.installation.engine)).__enter__)
        acting = asyncio.create_task(http.post("/campaigns/news/launch"))
        try:
            for _ in range(20):
                async with asyncio.timeout(3):
                    assert (await http.get("/campaigns/news")).status_code == 200
                await asyncio.sleep(0.02)
            assert not acting.done()
        finally:
            await asyncio.to_thread(locked.__exit__, None, None, None)
        await acting
    with read(api.installation.engine) as connection:
        assert connection.execute(sa.text("SELECT action FROM audit_record")).scalars().all() == ["campaign.launch"]


def test_the_path_of_the_api_is_the_one_of_its_description() -> None:
    assert openapi(create_routes())["servers"] == [{"url": MOUNT_PATH}]
