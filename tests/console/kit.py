"""The console on a real store, a real queue and a real socket, and clients that are signed in."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from html import unescape
from pathlib import Path

import httpx
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.app.context import AppContext, open_context
from postroad.clock import Clock
from postroad.console.app import create_app
from postroad.console.authorise import session_cookie_name
from postroad.console.findings import FindingsWatch
from postroad.console.parts import ConsoleParts
from postroad.console.serve import connection_limiter, open_parts
from postroad.doctor import Check
from postroad.queue import Health
from postroad.settings import (
    AccessRole,
    ConsoleSettings,
    RouteKind,
    RouteSettings,
    SenderSettings,
    Settings,
    WarmupSettings,
)
from postroad.settings.webhooks_out import WebhookEndpointSettings
from postroad.store.audit import AuditRecord, audit_records
from postroad.store.console_access import SignIn, begin_session
from postroad.store.engine import read, write
from postroad.web.serve import serving

CHECKS = [
    Check(part="database", health=Health.OK, seen="revision current"),
    Check(part="recorder", health=Health.WARN, seen="12,000 events are not recorded yet", remedy="Is it fast enough?"),
    Check(part="worker email:send", health=Health.FAIL, seen="no worker <b>lives</b>", remedy="Start one:\n  x"),
]


ROUTES = {"direct": RouteSettings(kind=RouteKind.DIRECT), "relay": RouteSettings(host="relay.example.net")}
SENDERS = {
    "news": SenderSettings(
        address="news@example.com",
        postal_address="1 High Street, Springfield",
        route="direct",
        source_address="192.0.2.7",
        warmup=WarmupSettings(zone="Europe/Berlin"),
    ),
    "offers": SenderSettings(address="offers@acme.dev", postal_address="1 High Street, Springfield", route="relay"),
}
"""Senders of the settings. `tests.store.rows.add_campaign` makes campaigns of the first one's address."""
WEBHOOK_SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
ENDPOINTS = {
    # Port 1 refuses connections. What follows the question mark is a secret of the URL.
    "shop": WebhookEndpointSettings(
        url="http://127.0.0.1:1/postroad?key=secret-of-the-url",
        secret=SecretStr(WEBHOOK_SECRET),
        allow_networks=("127.0.0.0/8",),
    )
}
"""Endpoints that get events."""


def set_session(http: httpx.AsyncClient, token: str) -> None:
    """Give a client the cookie of a session, in place of the one that it has."""
    http.cookies.set(session_cookie_name(secure=False), token, domain="127.0.0.1", path="/")


def form_of(page: httpx.Response) -> tuple[str, dict[str, str]]:
    """Return where the form of a page that asks is posted, and its hidden fields."""
    [action] = re.findall(r'<form method="post" action="([^"]+)" class="form">', page.text)
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
    return unescape(action), {name: unescape(value) for name, value in hidden}


async def press(http: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    """Open the page that asks about an act, fill in its fields, and press its button."""
    page = await http.get(path)
    assert page.status_code == 200, page.text
    action, hidden = form_of(page)
    return await http.post(action, data={**hidden, **fields})


@dataclass(kw_only=True)
class Console:
    """A running console."""

    parts: ConsoleParts
    engine: sa.Engine
    url: str
    _stack: AsyncExitStack = field(repr=False)

    def session(self, role: AccessRole, user: str = "") -> str:
        """Begin a session. Returns its token."""
        now = self.parts.now()
        sign_in = SignIn(
            user=user or f"{role}@example.com",
            role=role,
            method="link",
            origin="127.0.0.1",
            expires_at=now + timedelta(hours=1),
        )
        with write(self.engine) as connection:
            return begin_session(connection, sign_in, now)

    async def client(
        self, role: AccessRole | None = None, *, user: str = "", headers: Mapping[str, str] | None = None
    ) -> httpx.AsyncClient:
        """Return a client with a session of this role, or without one. It sends the console's origin with each POST."""
        http = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self.url, headers={"Origin": self.url, **(headers or {})}, timeout=30)
        )
        if role is not None:
            set_session(http, await asyncio.to_thread(self.session, role, user))
        return http

    def audit(self, limit: int = 100) -> Sequence[AuditRecord]:
        """Return the records of the audit log, the newest first."""
        with read(self.engine) as connection:
            return audit_records(connection, limit)


@asynccontextmanager
async def open_console(
    engine: sa.Engine,
    redis_url: str,
    state_dir: Path,
    console: ConsoleSettings | None = None,
    *,
    clock: Clock | None = None,
    checks: Sequence[Check] = CHECKS,
    endpoints: Mapping[str, WebhookEndpointSettings] = ENDPOINTS,
) -> AsyncIterator[Console]:
    """Serve the console. ``checks``: findings to show. ``clock``: time source of pages. ``endpoints``: of webhooks."""
    settings = Settings(
        state_dir=state_dir,
        redis_url=SecretStr(redis_url),
        database_url=SecretStr(engine.url.render_as_string(hide_password=False)),
        time_zone="Europe/Berlin",
        routes=ROUTES,
        senders=SENDERS,
        webhooks_out=dict(endpoints),
        console=console or ConsoleSettings(port=0),
    )

    async with open_context(settings, engine=engine) as context:
        if clock is not None:
            context.clock = clock
        async with open_console_of(context, checks=checks) as console_:
            yield console_


@asynccontextmanager
async def open_console_of(context: AppContext, *, checks: Sequence[Check] = CHECKS) -> AsyncIterator[Console]:
    """Serve the console with parts that are open. ``checks``: findings to show."""

    async def run() -> Sequence[Check]:
        return checks

    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(context, FindingsWatch(context.clock, run)))
        await parts.findings.refresh()
        limiter = connection_limiter(context.settings.console)
        port = await stack.enter_async_context(serving(create_app(parts), "127.0.0.1", 0, limiter, section="console"))
        clients = await stack.enter_async_context(AsyncExitStack())
        yield Console(parts=parts, engine=context.engine, url=f"http://127.0.0.1:{port}", _stack=clients)
