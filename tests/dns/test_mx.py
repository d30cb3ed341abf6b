"""The mail hosts of a domain (RFC 5321 §5.1 and RFC 7505), as a table."""

from __future__ import annotations

from random import Random

import pytest

from postroad.clock import SystemClock
from postroad.dns.mx import MailExchange, MailHosts, find_mail_hosts
from postroad.dns.resolver import Resolver
from tests.dns.nameserver import Nameserver, Trouble

ZONE = {
    "two.test": {"MX": ["20 b.two.test.", "10 A.two.test."]},
    "null.test": {"MX": ["0 ."], "A": ["192.0.2.1"]},
    "mixed.test": {"MX": ["0 .", "10 a.mixed.test."]},
    "address.test": {"A": ["192.0.2.1"]},
    "six.test": {"AAAA": ["2001:db8::1"]},
    "text.test": {"TXT": ['"nothing else"']},
    "alias.test": {"CNAME": ["two.test."]},
    "alias-of-address.test": {"CNAME": ["address.test."]},
    "broken.test": {"MX": ["10 a.test."]},
    "broken-address.test": {"TXT": ['"x"']},
}
HOSTS, NULL, NONE, UNKNOWN = MailExchange.HOSTS, MailExchange.NULL, MailExchange.NONE, MailExchange.UNKNOWN


@pytest.mark.parametrize(
    ("domain", "exchange", "hosts", "implicit"),
    [
        ("two.test", HOSTS, [(10, "a.two.test"), (20, "b.two.test")], False),
        ("null.test", NULL, [], False),
        ("mixed.test", HOSTS, [(10, "a.mixed.test")], False),
        ("address.test", HOSTS, [(0, "address.test")], True),
        ("six.test", HOSTS, [(0, "six.test")], True),
        ("text.test", NONE, [], False),
        ("nobody.test", NONE, [], False),
        ("alias.test", HOSTS, [(10, "a.two.test"), (20, "b.two.test")], False),
        ("alias-of-address.test", HOSTS, [(0, "address.test")], True),
        ("broken.test", UNKNOWN, [], False),
    ],
)
async def test_mail_hosts(domain: str, exchange: MailExchange, hosts: list[tuple[int, str]], implicit: bool) -> None:
    async with (
        Nameserver(ZONE, troubles={"broken.test": Trouble.SERVFAIL}) as server,
        Resolver(server.settings(), SystemClock()) as resolver,
    ):
        found = await find_mail_hosts(resolver, domain)
    assert (found.exchange, list(found.hosts), found.implicit) == (exchange, hosts, implicit)


async def test_no_mx_and_no_answer_about_addresses_is_unknown() -> None:
    class OnlyMx(Nameserver):
        def answer(self, octets: bytes, *, by_tcp: bool) -> bytes | None:
            return super().answer(octets, by_tcp=by_tcp) if b"\x00\x0f\x00\x01" in octets else b""

    async with OnlyMx(ZONE) as server, Resolver(server.settings(timeout_ms=300), SystemClock()) as resolver:
        found = await find_mail_hosts(resolver, "broken-address.test")
    assert found.exchange is UNKNOWN


def hosts(*found: tuple[int, str]) -> MailHosts:
    return MailHosts(domain="x.test", exchange=HOSTS, hosts=found)


def test_equal_hosts_are_shuffled_and_better_ones_come_first() -> None:
    found = hosts((10, "a"), (10, "b"), (5, "first"), (20, "last"))
    orders = {tuple(found.in_order(Random(seed))) for seed in range(50)}
    assert orders == {("first", "a", "b", "last"), ("first", "b", "a", "last")}


def test_mail_never_goes_to_ourselves_nor_to_what_is_no_better() -> None:
    found = hosts((10, "better"), (20, "us"), (20, "equal"), (30, "worse"))
    assert found.in_order(Random(1), {"us"}) == ["better"]
    assert hosts((10, "us"), (20, "worse")).in_order(Random(1), {"us"}) == []
