"""Mail hosts at addresses that are not public: no connection is made to them unless the settings allow it."""

from __future__ import annotations

from random import Random

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery.outcome import NoMailHostError, UnreachableReason
from postroad.delivery.routes import open_routes
from postroad.dns.public_address import may_connect, networks
from postroad.dns.resolver import Resolver
from postroad.queue import Queue
from postroad.settings import RouteSettings
from postroad.shaping.config import read_shaping
from tests.dns.nameserver import Nameserver
from tests.smtp.conftest import message, nothing

ZONE = {
    "slow.example": {"MX": ["10 mx1.slow.example.", "10 mx2.slow.example.", "10 mx3.slow.example."]},
    **{f"mx{number}.slow.example": {"A": [f"127.0.0.{number + 1}"]} for number in (1, 2, 3)},
    "fast.example": {"MX": ["10 mx.fast.example."]},
    "mx.fast.example": {"A": ["127.0.0.1"]},
    "private.example": {"MX": ["10 mx.private.example."]},
    "mx.private.example": {"A": ["10.0.0.1", "169.254.169.254"], "AAAA": ["::1", "::ffff:127.0.0.1"]},
}

PUBLIC = ["8.8.8.8", "2a00:1450:4001:800::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]

_NOT_PUBLIC = """
127.0.0.1 127.255.0.1 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0
0.1.2.3 255.255.255.255 224.0.0.1 239.1.1.1 240.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.9 192.0.0.8
192.88.99.1 ::1 :: ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 2002:7f00:1::1
2002:a00:1::1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
ff02::1 ff0e::1 fec0::1 2001::1 2001:db8::1 3fff::1 100::1
"""


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    assert may_connect(address)


@pytest.mark.parametrize("address", _NOT_PUBLIC.split())
def test_an_address_that_is_not_public_is_refused_unless_allowed(address: str) -> None:
    assert not may_connect(address)
    assert may_connect(address, networks(["0.0.0.0/0", "::/0"]))


def test_a_network_that_is_allowed_allows_the_addresses_that_lead_there() -> None:
    allowed = networks(["10.0.0.0/8"])
    assert may_connect("10.1.2.3", allowed)
    assert may_connect("::ffff:10.1.2.3", allowed)
    assert not may_connect("192.168.1.1", allowed)
    assert not may_connect("::ffff:192.168.1.1", allowed)


async def test_a_domain_whose_hosts_are_not_public_is_not_connected_to(engine: sa.Engine, queue: Queue) -> None:
    clock = SystemClock()
    async with Nameserver(ZONE) as server, Resolver(server.settings(), clock) as resolver:
        routes = {"direct": RouteSettings.model_validate({"kind": "direct", "port": 9})}
        async with open_routes(
            routes, shaping=read_shaping(None), resolver=resolver, engine=engine, clock=clock, rng=Random(7)
        ) as opened:
            with pytest.raises(NoMailHostError, match=r"no public address: 10\.0\.0\.1") as caught:
                await opened["direct"].send(message(recipient="ada@private.example"), nothing)
    assert caught.value.kind is UnreachableReason.NOT_PUBLIC
