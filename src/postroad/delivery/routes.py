"""Opens the routes of the settings: to relays, or directly to each domain's mail hosts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Protocol, assert_never

import sqlalchemy as sa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from postroad.clock import Clock
from postroad.delivery.destinations import Destinations
from postroad.delivery.direct import DirectRoute
from postroad.delivery.sts_policies import StsPolicies
from postroad.dns.resolver import Resolver
from postroad.errors import ConfigError
from postroad.settings import RelaySettings, RouteKind, RouteSettings, SenderSettings
from postroad.shaping.config import Shaping
from postroad.smtp.breaker import Breaker, BreakerState
from postroad.smtp.endpoint import Endpoint, LocalBinding
from postroad.smtp.errors import Timeouts
from postroad.smtp.oauth import TokenSource
from postroad.smtp.pools import Pools
from postroad.smtp.relays import Relay, RelayRoute
from postroad.smtp.reply import Reply
from postroad.smtp.session import Sendable
from postroad.smtp.tls import client_context


class Route(Protocol):
    """A route of mail. ``is_relay``: its replies come from a relay, not from the recipient's mail host."""

    @property
    def is_relay(self) -> bool: ...

    @property
    def breakers(self) -> Sequence[Breaker]: ...

    async def send(
        self, message: Sendable, before_body: Callable[[], Awaitable[None]], origin: LocalBinding = ...
    ) -> Reply:
        """Send a message in one transaction.

        Args:
            message: The message.
            before_body: Called before the body is sent, see `Session.send`.
            origin: Local address and HELO name to send from.

        Returns:
            The final reply.

        Raises:
            TransportError: The connection failed.
            UnsendableError: SMTP cannot carry the message.
            NoMailHostError: No mail host could be reached.
        """
        ...


@asynccontextmanager
async def open_routes(
    routes: Mapping[str, RouteSettings],
    *,
    shaping: Shaping,
    resolver: Resolver,
    engine: sa.Engine,
    clock: Clock,
    rng: Random,
    destinations: Destinations | None = None,
) -> AsyncIterator[dict[str, Route]]:
    """Open every route. No connection is made yet.

    Args:
        routes: Settings of the routes, by name.
        shaping: Limits of receivers, for the routes that they apply to.
        resolver: Looks up mail hosts and policies.
        engine: Database of MTA-STS policies.
        clock: The clock.
        rng: Chooses among equally preferred hosts and relays.
        destinations: Limits of direct routes. None: five jobs for each destination, and public addresses only.

    Raises:
        ConfigError: A file of certificate authorities cannot be used.
    """
    destinations = destinations or Destinations()
    async with AsyncExitStack() as stack:
        opened: dict[str, Route] = {}
        for name, settings in routes.items():
            pools = await stack.enter_async_context(Pools(Timeouts.of(settings.timeouts)))
            match settings.kind:
                case RouteKind.RELAY:
                    relays = [relay_of(relay, settings.helo, clock) for relay in settings.relay_pool]
                    opened[name] = RelayRoute(relays, pools, rng)
                case RouteKind.DIRECT:
                    trust = await _trust(name, settings)
                    policies = StsPolicies(resolver, engine, clock, trust, allowed=destinations.allowed)
                    opened[name] = DirectRoute(
                        settings,
                        shaping=shaping if settings.is_shaped else None,
                        policies=policies,
                        pools=pools,
                        clock=clock,
                        rng=rng,
                        destinations=destinations,
                    )
                case other:
                    assert_never(other)
        yield opened


async def _trust(name: str, settings: RouteSettings) -> ssl.SSLContext:
    try:
        return await asyncio.to_thread(client_context, settings.ca_file)
    except OSError as error:
        raise ConfigError(
            f"{settings.ca_file} cannot be used: {error}",
            where=f"routes.{name}.ca_file",
            remedy="It must contain CA certificates in PEM format.",
        ) from None


def relay_of(settings: RelaySettings, helo: str | None, clock: Clock) -> Relay:
    """Make a relay from its settings."""
    tokens = TokenSource(settings.oauth, clock) if settings.oauth is not None else None
    endpoint = Endpoint.of_relay(settings, tokens).sent_from(LocalBinding(helo=helo))
    login = f"{settings.username} at " if settings.username is not None else ""
    breaker = Breaker(f"relay {login}{endpoint.name}", clock)
    return Relay(endpoint=endpoint, weight=settings.weight, breaker=breaker)


def origins_of(senders: Mapping[str, SenderSettings]) -> dict[str, LocalBinding]:
    """Return the local address and HELO name of each sender, by From address."""
    return {
        sender.address: LocalBinding(source_address=sender.source_address, helo=sender.helo, sender=sender.address)
        for sender in senders.values()
    }


class RouteMetrics(Collector):
    """Exports the state of the circuit breakers of each route."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes

    def collect(self) -> Iterator[Metric]:
        open_ = GaugeMetricFamily(
            "postroad_route_host_open", "1 while a host is not tried, 0.5 while one message tries it", labels=_LABELS
        )
        failures = CounterMetricFamily(
            "postroad_route_host_failures",
            "Sessions that could not be opened, or were lost before RCPT",
            labels=_LABELS,
        )
        for name, route in self._routes.items():
            for breaker in route.breakers[:MAX_HOSTS]:
                open_.add_metric([name, breaker.name], _SHARE[breaker.state])
                failures.add_metric([name, breaker.name], breaker.failures)
        yield from (open_, failures)


_LABELS = ("route", "host")
_SHARE = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}
MAX_HOSTS = 100
"""Hosts of one route that are exported. A direct route may have thousands."""
