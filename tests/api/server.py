"""A real server of the API, and clients with keys of each scope."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from starlette.routing import Mount, Router

from postroad.api.app import MOUNT_PATH, answer_no_path, create_api
from postroad.api.parts import ApiParts
from postroad.app.api_keys import create_key
from postroad.settings import AccessRole
from postroad.store.engine import write
from tests.api.installation import Installation
from tests.kit.waiting import until


@dataclass
class ApiServer:
    """The address of a server, and its keys."""

    installation: Installation
    url: str
    keys: dict[AccessRole, str] = field(default_factory=dict)

    def client(self, scope: AccessRole | None = AccessRole.OWN, **headers: str) -> httpx.AsyncClient:
        """Return a client with a key of this scope; None: without a key."""
        if scope is not None:
            headers["Authorization"] = f"Bearer {self.key(scope)}"
        return httpx.AsyncClient(base_url=f"{self.url}{MOUNT_PATH}", headers=headers, timeout=30, trust_env=False)

    def key(self, scope: AccessRole) -> str:
        if scope not in self.keys:
            context = self.installation.context
            with write(context.engine) as connection:
                made = create_key(connection, f"key-{scope}", scope, expires_at=None, now=context.clock.now())
            self.keys[scope] = made.secret
        return self.keys[scope]


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an application on a free port of loopback. Yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def an_api_server(installation: Installation) -> AsyncIterator[ApiServer]:
    """Serve the API of an installation at its path."""
    api = Mount(MOUNT_PATH, create_api(ApiParts.of(installation.context)))
    app = Router(routes=[api], default=answer_no_path)
    async with served(app) as url:
        yield ApiServer(installation, url)
