"""Routes as the settings name them, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest

from postroad.delivery.direct import DirectRoute
from postroad.delivery.routes import RouteMetrics, open_routes, origins_of
from postroad.dns.resolver import Resolver
from postroad.errors import ConfigError
from postroad.settings import DnsSettings, RouteSettings, SenderSettings
from postroad.shaping.config import read_shaping
from postroad.smtp.breaker import FAILURES_IN_A_ROW, PAUSES_MS
from postroad.smtp.endpoint import LocalBinding
from postroad.smtp.errors import TransportError
from postroad.smtp.relays import RelayRoute
from tests.dns.nameserver import Nameserver
from tests.kit.clock import SleepingClock
from tests.smtp.conftest import message, nothing
from tests.smtp.scripted import ScriptedServer


def relays(*ports: int) -> RouteSettings:
    return RouteSettings.model_validate(
        {"tls": "none", "helo": "mail.x.example", "relays": [{"host": "127.0.0.1", "port": port} for port in ports]}
    )


async def test_routes_are_opened_and_their_hosts_shown(engine: sa.Engine) -> None:
    clock = SleepingClock()
    async with (
        Nameserver({}) as server,
        ScriptedServer({"CONNECT": "421 4.3.2 no"}) as bad,
        ScriptedServer() as good,
        Resolver(server.settings(), clock) as resolver,
    ):
        settings = {
            "pool": relays(bad.port, good.port),
            "direct": RouteSettings.model_validate({"kind": "direct"}),
        }
        async with open_routes(
            settings, shaping=read_shaping(None), resolver=resolver, engine=engine, clock=clock, rng=Random(7)
        ) as routes:
            assert isinstance(routes["pool"], RelayRoute)
            assert isinstance(routes["direct"], DirectRoute)
            registry = CollectorRegistry()
            registry.register(RouteMetrics(routes))
            for _ in range(20):
                assert (await routes["pool"].send(message(), nothing)).code == 250
            shown = generate_latest(registry).decode()
            at_bad, at_good = (f'{{host="relay 127.0.0.1:{port}",route="pool"}}' for port in (bad.port, good.port))
            assert f"postroad_route_host_open{at_bad} 1.0" in shown
            assert f"postroad_route_host_open{at_good} 0.0" in shown
            assert f"postroad_route_host_failures_total{at_bad} {FAILURES_IN_A_ROW:.1f}" in shown
            clock.advance(PAUSES_MS[0])
        assert good.commands[0] == b"EHLO mail.x.example\r\n"
        assert good.commands[-1] == b"QUIT\r\n"


async def test_a_direct_route_with_authorities_that_are_not_there_is_a_config_error(
    engine: sa.Engine, tmp_path: Path
) -> None:
    clock = SleepingClock()
    settings = {"direct": RouteSettings.model_validate({"kind": "direct", "ca_file": tmp_path / "missing.pem"})}
    async with Nameserver({}) as server, Resolver(server.settings(), clock) as resolver:
        with pytest.raises(ConfigError, match=r"routes\.direct\.ca_file"):
            async with open_routes(
                settings, shaping=read_shaping(None), resolver=resolver, engine=engine, clock=clock, rng=Random(7)
            ):
                pass


async def test_a_relay_with_authorities_that_are_not_there_fails_when_it_is_needed(
    engine: sa.Engine, tmp_path: Path
) -> None:
    """The other relays of its route continue."""
    clock = SleepingClock()
    relay = RouteSettings.model_validate({"host": "127.0.0.1", "port": 9, "ca_file": tmp_path / "missing.pem"})
    async with (
        Resolver(DnsSettings(), clock) as resolver,
        open_routes(
            {"r": relay}, shaping=read_shaping(None), resolver=resolver, engine=engine, clock=clock, rng=Random(7)
        ) as routes,
    ):
        with pytest.raises(TransportError):
            await routes["r"].send(message(), nothing)


def test_a_senders_origin_is_what_it_says() -> None:
    plain = {"address": "a@x.example", "postal_address": "1 High Street", "route": "r"}
    senders = {
        "plain": SenderSettings.model_validate(plain),
        "own": SenderSettings.model_validate(plain | {"address": "b@x.example", "source_address": "192.0.2.1"}),
    }
    assert origins_of(senders) == {
        "a@x.example": LocalBinding(sender="a@x.example"),
        "b@x.example": LocalBinding(sender="b@x.example", source_address="192.0.2.1"),
    }
