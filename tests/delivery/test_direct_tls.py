"""TLS to the mail hosts of a domain: what receivers, DANE and MTA-STS require."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from postroad.delivery.outcome import UnreachableReason
from postroad.shaping.config import read_shaping
from tests.delivery.direct_world import POLICY, SIGNED, ZONE, World, obstacle_to, send_to, shaping_of, tlsa_of
from tests.dns.nameserver import Nameserver, Trouble
from tests.https import https
from tests.smtp.conftest import Marks, message


async def test_tls_is_used_where_it_is_offered_whatever_the_certificate(world: World) -> None:
    await world.host(1, names=("somebody.else",))
    await world.host(2, tls=False)
    async with Nameserver(ZONE) as server:
        route = await world.route(server)
        await route.send(message(recipient="ada@address.example"), Marks())
        await route.send(message(recipient="ada@aliased-host.example"), Marks())
    assert {last: len(found) for last, found in world.taken().items()} == {1: 1, 2: 1}
    assert (world.hosts[1].counters.secured, world.hosts[2].counters.secured) == (1, 0)


@pytest.mark.parametrize(
    ("tls", "table", "offered", "secured"),
    [
        ("opportunistic", "domain.'address.example'", True, 1),
        ("opportunistic", "domain.'address.example'", False, None),
        ("none", "domain.'address.example'", True, 1),
        ("none", "domain.'two.example'", True, 0),  # another domain's
        ("none", "provider.google", True, 0),
        ("opportunistic", "default", False, None),
    ],
)
async def test_a_receiver_that_asks_for_tls_gets_nothing_in_the_clear(
    world: World, tmp_path: Path, tls: str, table: str, offered: bool, secured: int | None
) -> None:
    await world.host(1, tls=offered, names=("somebody.else",))
    shaping = shaping_of(tmp_path, f"[{table}]\ntls = 'required'")
    async with Nameserver(ZONE) as server:
        route = await world.route(server, shaping=shaping, tls=tls)
        if secured is None:
            assert (await obstacle_to(route, "ada@address.example")).kind is UnreachableReason.HOSTS_DOWN
            assert world.taken() == {1: []}
        else:
            await send_to(route, "ada@address.example")
            assert world.hosts[1].counters.secured == secured


async def test_google_is_known_by_its_hosts_and_gets_nothing_in_the_clear(world: World) -> None:
    await world.host(1, tls=False)
    zone = {"school.net": {"MX": ["1 aspmx.l.google.com."]}, "aspmx.l.google.com": {"A": ["127.0.0.1"]}}
    async with Nameserver(zone) as server:
        route = await world.route(server, shaping=read_shaping(None))
        assert (await obstacle_to(route, "ada@school.net")).kind is UnreachableReason.HOSTS_DOWN
    assert world.taken() == {1: []}


@pytest.mark.parametrize("right", [True, False])
async def test_dane_decides_where_dnssec_vouches_for_it(world: World, tmp_path: Path, right: bool) -> None:
    await world.host(1, names=("whatever.example",))
    record = tlsa_of(tmp_path / "tls-1") if right else f"3 1 1 {'00' * 32}"
    name = f"_{world.port}._tcp.mx.signed.example"
    async with Nameserver(ZONE | {name: {"TLSA": [record]}}, signed=SIGNED | {name}) as server:
        route = await world.route(server)
        if right:
            assert (await route.send(message(recipient="ada@signed.example"), Marks())).code == 250
        else:
            error = await obstacle_to(route, "ada@signed.example")
            assert error.kind is UnreachableReason.HOSTS_DOWN
            assert "TLSA" in error.reason


async def test_unsigned_tlsa_records_are_ignored(world: World) -> None:
    await world.host(1)
    name = f"_{world.port}._tcp.mx.signed.example"
    async with Nameserver(ZONE | {name: {"TLSA": [f"3 1 1 {'00' * 32}"]}}) as server:
        route = await world.route(server)
        assert (await route.send(message(recipient="ada@signed.example"), Marks())).code == 250
        assert not server.asked[name, "TLSA"]


async def test_no_answer_about_certificates_where_dns_is_signed_is_no_delivery(world: World) -> None:
    """RFC 7672 §2.1: otherwise an attacker who suppresses the answer removes the protection."""
    await world.host(1)
    name = f"_{world.port}._tcp.mx.signed.example"
    async with Nameserver(ZONE, signed=SIGNED, troubles={name: Trouble.SERVFAIL}) as server:
        route = await world.route(server)
        assert (await obstacle_to(route, "ada@signed.example")).kind is UnreachableReason.NO_ANSWER
    assert world.taken() == {1: []}


async def test_a_signed_host_without_tls_and_with_tlsa_gets_nothing_in_the_clear(world: World) -> None:
    await world.host(1, tls=False)
    name = f"_{world.port}._tcp.mx.signed.example"
    zone: Mapping[str, Mapping[str, list[str]]] = ZONE | {name: {"TLSA": ["0 0 1 " + "00" * 32]}}
    async with Nameserver(zone, signed=SIGNED | {name}) as server:
        route = await world.route(server)
        assert (await obstacle_to(route, "ada@signed.example")).kind is UnreachableReason.HOSTS_DOWN
    assert world.taken() == {1: []}


@pytest.mark.parametrize(
    ("mode", "mx", "names", "delivered"),
    [
        ("enforce", "mx.sts.example", ("mx.sts.example",), True),
        ("enforce", "*.sts.example", ("mx.sts.example",), True),
        ("enforce", "mx.sts.example", ("other.example",), False),
        ("enforce", "elsewhere.example", ("mx.sts.example",), False),
        ("testing", "elsewhere.example", ("other.example",), True),
        ("none", "elsewhere.example", ("other.example",), True),
    ],
)
async def test_mta_sts(
    world: World, tmp_path: Path, mode: str, mx: str, names: tuple[str, ...], delivered: bool
) -> None:
    await world.host(1, names=names)
    (tmp_path / "https").mkdir()
    body = POLICY.format(mode=mode, mx=mx)
    async with https(tmp_path / "https", "mta-sts.sts.example", body) as (site, _), Nameserver(ZONE) as server:
        route = await world.route(server, site=site, ca_file=tmp_path / "tls-1" / "ca.pem")
        if delivered:
            assert (await route.send(message(recipient="ada@sts.example"), Marks())).code == 250
        else:
            error = await obstacle_to(route, "ada@sts.example")
            assert error.kind in (UnreachableReason.HOSTS_DOWN, UnreachableReason.POLICY)
    assert len(world.taken()[1]) == int(delivered)


async def test_a_host_without_tls_gets_nothing_from_a_domain_that_enforces_it(world: World, tmp_path: Path) -> None:
    await world.host(1, tls=False)
    (tmp_path / "https").mkdir()
    body = POLICY.format(mode="enforce", mx="mx.sts.example")
    async with https(tmp_path / "https", "mta-sts.sts.example", body) as (site, _), Nameserver(ZONE) as server:
        route = await world.route(server, site=site)
        assert (await obstacle_to(route, "ada@sts.example")).kind is UnreachableReason.HOSTS_DOWN
    assert world.taken() == {1: []}
