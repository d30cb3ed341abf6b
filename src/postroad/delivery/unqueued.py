"""Sends a few messages by the route of a sender, without the queue: canaries and proofs.

A message uses the route's connections, DKIM key and TLS settings. No gate, cap or pause holds it, and the ledger has no
record of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import NamedTuple

import sqlalchemy as sa

from postroad.clock import Clock
from postroad.delivery.destinations import Destinations
from postroad.delivery.outcome import NoMailHostError
from postroad.delivery.routes import Route, open_routes, origins_of
from postroad.dns.resolver import Resolver
from postroad.errors import ConfigError
from postroad.mail.message import Message
from postroad.settings import Settings
from postroad.shaping.config import read_shaping
from postroad.smtp.endpoint import ANYWHERE, LocalBinding
from postroad.smtp.errors import TransportError, UnsendableError
from postroad.smtp.reply import Reply


class SendAttempt(NamedTuple):
    """The outcome of one message: the final reply, or the reason of the failure."""

    reply: Reply | None = None
    error: str = ""
    unknown: bool = False
    """Whether the connection was lost after the final dot, so that the message may have been accepted."""

    @property
    def accepted(self) -> bool:
        return self.reply is not None and self.reply.code == 250

    def __str__(self) -> str:
        return str(self.reply) if self.reply is not None else self.error


class UnqueuedRoute:
    """The route of one sender."""

    def __init__(self, route: Route, origin: LocalBinding) -> None:
        self._route = route
        self._origin = origin

    async def send(self, message: Message) -> SendAttempt:
        """Send a message once. Return the outcome: there is one for every failure of SMTP, TLS and DNS."""
        try:
            return SendAttempt(await self._route.send(message, _before_body, self._origin))
        except TransportError as error:
            return SendAttempt(error=error.reason, unknown=error.unknown)
        except (UnsendableError, NoMailHostError) as error:
            return SendAttempt(error=error.reason)


@asynccontextmanager
async def open_unqueued(
    settings: Settings, route: str, sender: str, *, engine: sa.Engine, resolver: Resolver, clock: Clock
) -> AsyncIterator[UnqueuedRoute]:
    """Open the route of a sender.

    Args:
        settings: The settings.
        route: Name of the route.
        sender: From address of the sender.
        engine: Database of MTA-STS policies.
        resolver: Looks up mail hosts.
        clock: The clock.

    Yields:
        The route.

    Raises:
        ConfigError: There is no such route, or a file that it names cannot be used.
    """
    if route not in settings.routes:
        raise ConfigError(f"there is no route named {route!r}", remedy=f"Add a section [routes.{route}].")
    async with open_routes(
        {route: settings.routes[route]},
        shaping=read_shaping(settings.delivery.shaping),
        resolver=resolver,
        engine=engine,
        clock=clock,
        rng=Random(),  # noqa: S311  (chooses between equal hosts)
        destinations=Destinations.of(settings.delivery, concurrency=1),
    ) as routes:
        yield UnqueuedRoute(routes[route], origins_of(settings.senders).get(sender, ANYWHERE))


async def _before_body() -> None:
    """Do nothing: the message is not in a queue."""
