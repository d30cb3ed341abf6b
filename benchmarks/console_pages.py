"""The pages of the console on a generated store, as a browser gets them. Their URLs are found by following links."""

from __future__ import annotations

import re
import sys
import time
from base64 import b64encode
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Final

import httpx
from pydantic import SecretStr
from starlette.routing import compile_path

from postroad.app.context import open_context
from postroad.console.app import create_app
from postroad.console.authorise import session_cookie_name
from postroad.console.parts import ConsoleParts
from postroad.console.registry import SCREENS
from postroad.console.serve import connection_limiter, open_parts
from postroad.settings import AccessRole, ConsoleSettings, Settings
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.console_access import SignIn, begin_session
from postroad.store.engine import write
from postroad.web.serve import serving

URLS: Final = 6
"""URLs that are found of one page."""

COMPUTED: Final[Mapping[str, str]] = {
    "/campaigns/{campaign}/delays": "reads ten thousand messages: `benchmarks explain`",
    "/campaigns/{campaign}/forecast": "simulates the campaign: `benchmarks forecast`",
    "/launch/{campaign}": "simulates the campaign",
    "/launch/{campaign}/findings": "checks the audience and DNS",
    "/launch/{campaign}/forecast": "simulates the campaign",
    "/launch/{campaign}/start": "simulates the campaign",
    "/launch/{campaign}/run/{run_id}": "asks the Prefect server",
    "/launch/{campaign}/run/{run_id}/live": "asks the Prefect server",
}
"""Pages that compute more than they read, and so are not measured, with the reason."""

_SECRET: Final = f"whsec_{b64encode(bytes(32)).decode()}"
_LINK = re.compile(r'(?:href|hx-get)="(/[^"]*)"')


def page_paths() -> list[str]:
    """Return the paths of the registered pages that are measured where the store has something that they show."""
    paths = [route.path for screen in SCREENS for route in screen.routes if route.method == "GET"]
    return [path for path in dict.fromkeys(paths) if path not in COMPUTED]


class PageFailedError(Exception):
    """A page did not answer with 200."""


@asynccontextmanager
async def signed_in(database_url: str, redis_url: str, state_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the console on this machine, and yield a client with a session of an owner."""
    settings = Settings(
        state_dir=state_dir,
        redis_url=SecretStr(redis_url),
        database_url=SecretStr(database_url),
        console=ConsoleSettings(port=0),
        webhooks_out={"shop": WebhookEndpointSettings(url="https://shop.example/events", secret=SecretStr(_SECRET))},
    )
    async with AsyncExitStack() as stack:
        context = await stack.enter_async_context(open_context(settings))
        parts = await stack.enter_async_context(open_parts(context))
        limiter = connection_limiter(settings.console)
        port = await stack.enter_async_context(serving(create_app(parts), "127.0.0.1", 0, limiter, section="console"))
        cookies = {session_cookie_name(secure=False): _begin_session(parts)}
        yield await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", cookies=cookies, timeout=60)
        )


def _begin_session(parts: ConsoleParts) -> str:
    now = parts.now()
    sign_in = SignIn(
        user="owner@example.com",
        role=AccessRole.OWN,
        method="link",
        origin="127.0.0.1",
        expires_at=now + timedelta(hours=3),
    )
    with write(parts.engine) as connection:
        return begin_session(connection, sign_in, now)


async def find_pages(client: httpx.AsyncClient) -> dict[str, list[str]]:
    """Return URLs of the pages, by the paths of their routes. A page to which no link leads is missing.

    Raises:
        PageFailedError: A page answered with an error of the server.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    waiting = deque(["/"])
    seen = {"/"}
    while waiting:
        url = waiting.popleft()
        path = route_path(url.partition("?")[0])
        if path is None or path in COMPUTED or len(found[path]) >= URLS:
            continue
        response = await client.get(url)
        if response.status_code >= 500:
            raise PageFailedError(f"GET {url} answered {response.status_code}")
        if response.status_code != 200:
            continue
        found[path].append(url)
        new = [link for link in _links(response.text) if link not in seen]
        seen.update(new)
        waiting.extend(new)
    return {path: urls for path, urls in found.items() if urls}


def _links(html: str) -> Iterator[str]:
    for link in dict.fromkeys(_LINK.findall(html)):
        yield unescape(link).partition("#")[0]


_ROUTES = [(route.path, compile_path(route.path)[0]) for screen in SCREENS for route in screen.routes]


def route_path(path: str) -> str | None:
    """Return the path of the route that serves a path. None: no screen has it."""
    return next((name for name, pattern in _ROUTES if pattern.match(path)), None)


async def page_samples(client: httpx.AsyncClient, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Return the times until the whole page is there, in milliseconds, by the paths of the pages.

    Args:
        client: A client with a session.
        rounds: Requests of each page.
        warm_up: Requests before them that are not counted.

    Raises:
        PageFailedError: A page did not answer with 200.
    """
    pages = await find_pages(client)
    missing = [path for path in page_paths() if path not in pages]
    if missing:
        print(f"nothing in the store leads to {', '.join(missing)}", file=sys.stderr, flush=True)
    return {
        path: [await _page_ms(client, urls, n) for n in range(warm_up + rounds)][warm_up:]
        for path, urls in pages.items()
        if path in page_paths()
    }


async def _page_ms(client: httpx.AsyncClient, urls: Sequence[str], n: int) -> float:
    url = urls[n % len(urls)]
    begun = time.perf_counter()
    response = await client.get(url)
    taken = time.perf_counter() - begun
    if response.status_code != 200:
        raise PageFailedError(f"GET {url} answered {response.status_code}")
    return taken * 1000
