"""Hostile values in each parameter and field of the console: the answer is a page that says so, and never a failure."""

from __future__ import annotations

import asyncio
import base64
import inspect
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

import httpx
import pytest
import sqlalchemy as sa

from postroad.settings import AccessRole
from tests.console.kit import Console, open_console
from tests.console.pages import EXAMPLES, HOSTILE, PARAMETER, PATHS, QUERIES, RegisteredRoute, fill, routes

VALUES = {
    "script": HOSTILE,
    "NUL": "a\0b",
    "line breaks": "a\r\nSet-Cookie: b=c",
    "many bits": "9" * 400,
    "nested cursor": base64.urlsafe_b64encode(b"[" * 700 + b"]" * 700).decode(),
    "cursor of a late day": base64.urlsafe_b64encode(b'["9999-12-31T23:59:59.999999Z",1]').decode(),
}
"""Values by what is hostile in them."""

_FIELD = re.compile(r"""form\.(?:raw|text|choice|time|row_id)\("(\w+)\"""")
_GIVEN_BACK = re.compile(r"""(value|href|action|content)="[^"]*\"""")
"""Values that a form or a link keeps as they were given."""
SIGNS_OUT = {"/sign-out"}


@pytest.fixture
async def console(engine: sa.Engine, redis_url: str, tmp_path: Path) -> AsyncIterator[Console]:
    async with open_console(engine, redis_url, tmp_path / "state") as console:
        await asyncio.to_thread(fill, engine)
        yield console


def fields(route: RegisteredRoute) -> set[str]:
    """Names of the fields of the forms of a route's module."""
    module = inspect.getmodule(route.route.endpoint)
    assert module is not None
    return {*_FIELD.findall(inspect.getsource(module)), "back", "q", "next"}


def parameters(route: RegisteredRoute) -> list[str]:
    """Names of the query parameters of a route."""
    names = inspect.signature(route.route.endpoint).parameters
    return [name for name in names if name != "visit" and name not in PARAMETER.findall(route.route.path)]


def urls(route: RegisteredRoute, value: str) -> list[str]:
    """Return the route's URL with the value in each parameter of the path and of the query, one at a time."""
    path, _, query = route.path.partition("?")
    given = dict(parse_qsl(query))
    found = [f"{path}?{urlencode({**given, name: value})}" for name in parameters(route)]
    if value and route.route.path not in PATHS:
        for name in PARAMETER.findall(route.route.path):
            values = {**EXAMPLES, name: value}
            path = route.route.path
            for part, text in values.items():
                path = re.sub(rf"\{{{part}(:\w+)?\}}", quote(text, safe=""), path)
            found.append(path + QUERIES.get(route.route.path, ""))
    return found


def faults(answer: httpx.Response) -> Iterator[str]:
    if answer.status_code >= 500 and answer.status_code != 503:
        yield f"{answer.status_code}"
    if "<script>alert" in answer.text or "<img src=x" in answer.text:
        yield "its markup is markup of the page"
    if re.search(r"[\x00\x1b\u202e]", _GIVEN_BACK.sub("", answer.text)):
        yield "its control characters are in the page"
    if "evil.example" in answer.headers.get("location", "").partition("?")[0]:
        yield "it leads to another site"
    if "b=c" in answer.headers.get("set-cookie", "").split("; "):
        yield "it is a header"


@pytest.mark.timeout(300)
async def test_a_hostile_value_in_a_url_is_answered(console: Console) -> None:
    http, found = await console.client(AccessRole.OWN), []
    for kind, value in VALUES.items():
        for route in routes():
            if route.route.method == "GET":
                for url in urls(route, value):
                    found += [f"{kind}, {url[:200]}: {fault}" for fault in faults(await http.get(url))]
    assert not found, "\n".join(found)


@pytest.mark.timeout(300)
async def test_a_hostile_value_in_a_form_is_answered(console: Console) -> None:
    http, found = await console.client(AccessRole.OWN), []
    for kind, value in VALUES.items():
        for route in routes():
            if route.route.method != "POST" or route.route.path in SIGNS_OUT:
                continue
            valid = dict(parse_qsl(QUERIES.get(route.route.path, "").removeprefix("?")))
            forms = [{**valid, name: value} for name in fields(route)]
            for form in (dict.fromkeys(fields(route), value), *forms):
                answer = await http.post(route.path, data=form)
                found += [f"{kind}, {route}, {sorted(form)}: {fault}" for fault in faults(answer)]
    assert not found, "\n".join(found)


def test_fields_of_forms_are_found() -> None:
    found = {route.route.path: fields(route) for route in routes() if route.route.method == "POST"}
    assert {"cap", "why", "identity", "provider"} <= found["/warmup/override"]
    assert {"q", "note"} <= found["/messages/{undecided}/decide"]
