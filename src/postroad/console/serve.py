"""Opens the parts of the console, and refuses to listen for others without a way to sign in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import sqlalchemy as sa

from postroad.api.access import BODY_WITHIN_S
from postroad.app.context import AppContext
from postroad.app.recorded_act import ACT_WITHIN_S
from postroad.console.findings import FindingsWatch
from postroad.console.oidc import OidcClient
from postroad.console.parts import ConsoleParts
from postroad.console.passwords import Passwords
from postroad.console.registry import SCREENS
from postroad.console.templates import Templates
from postroad.errors import ConfigError
from postroad.fetch import BoundedClient
from postroad.settings import ConsoleSettings
from postroad.settings.console import is_loopback
from postroad.store.console_access import any_user
from postroad.store.engine import read
from postroad.web.connections import ConnectionLimits, WebConnectionLimiter
from postroad.web.rate_limit import RateLimiter, networks

CONNECTIONS = 256
CONNECTIONS_PER_CLIENT = 64


@asynccontextmanager
async def open_parts(context: AppContext, findings: FindingsWatch | None = None) -> AsyncIterator[ConsoleParts]:
    """Open the parts of the console.

    Args:
        context: The application's context.
        findings: Runs the checks. None: those of `postroad doctor`.

    Yields:
        The parts.
    """
    settings = context.settings.console
    async with AsyncExitStack() as stack:
        oidc = None
        if settings.oidc is not None:
            http = await stack.enter_async_context(BoundedClient())
            oidc = OidcClient(settings.oidc, http, context.clock)
        yield ConsoleParts(
            context=context,
            templates=Templates(SCREENS, context.settings.zone, context.clock),
            passwords=Passwords(),
            sign_ins=RateLimiter(settings.sign_in_rate, context.clock),
            oidc=oidc,
            findings=findings or FindingsWatch(context.clock),
            trusted_proxies=networks(settings.trusted_proxies),
        )


def connection_limiter(settings: ConsoleSettings) -> WebConnectionLimiter:
    """Return the limiter of the console's connections. An act or a body that takes too long is answered before."""
    limits = ConnectionLimits(
        connections=CONNECTIONS, per_client=CONNECTIONS_PER_CLIENT, body_s=BODY_WITHIN_S + 5, answer_s=ACT_WITHIN_S + 30
    )
    proxies = settings.proxy.addresses if settings.proxy is not None else ()
    return WebConnectionLimiter(limits, networks((*settings.trusted_proxies, *proxies)))


def require_sign_in(engine: sa.Engine, settings: ConsoleSettings, host: str) -> None:
    """Check that the console is safe to listen on this address.

    On an address of other machines it needs the URL of its users, by HTTPS unless they are on this machine, and a way
    to sign in that is not a link.

    Args:
        engine: The database, with the users.
        settings: Settings of the console.
        host: Address to listen on.

    Raises:
        ConfigError: It is not safe.
    """
    if is_loopback(host):
        return
    where = f"console.host {host}"
    if settings.url is None or not settings.url.startswith("https://"):
        raise ConfigError(
            "other machines reach this address, and console.url is not an https:// URL",
            where=where,
            remedy="Put a TLS proxy in front of it and set console.url to the proxy, or listen on 127.0.0.1.",
        )
    if settings.oidc is not None or settings.proxy is not None:
        return
    with read(engine) as connection:
        if any_user(connection):
            return
    raise ConfigError(
        "other machines reach this address, and no way to sign in is set",
        where=where,
        remedy="Set console.oidc or console.proxy, or add a user: `postroad console user add NAME --role own`.",
    )
