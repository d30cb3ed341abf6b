"""MTA-STS (RFC 8461): tables of records and policies, and fetching from a real HTTPS server."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.clock import SystemClock
from postroad.delivery.sts_policies import RETRY_MS, StsPolicies
from postroad.dns.mta_sts import (
    MAX_AGE_S,
    MtaStsPolicy,
    PolicyError,
    StsMode,
    fetch_policy,
    find_policy_id,
    parse_policy,
)
from postroad.dns.public_address import EVERYWHERE
from postroad.dns.resolver import Resolver
from tests.dns.nameserver import Nameserver
from tests.https import https
from tests.kit.clock import SleepingClock

POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.test\r\nmx: *.example.test\r\nmax_age: 86400\r\n"
NAME = "mta-sts.example.test"
ZONE = {
    "_mta-sts.example.test": {"TXT": ['"v=STSv1; id=20261124T1;"']},
    "mta-sts.example.test": {"A": ["127.0.0.1"]},
}


@pytest.mark.parametrize(
    ("texts", "policy_id"),
    [
        (['"v=STSv1; id=20160831085700Z;"'], "20160831085700Z"),
        (['"v=STSv1;" " id=1"'], "1"),
        (['"v=STSv1; id=1; ext=x;"'], "1"),
        (['"v=spf1 -all"', '"v=STSv1; id=1;"'], "1"),
        (['"v=STSv1; id=1;"', '"v=STSv1; id=2;"'], None),  # §3.1: several records count as no record
        (['"v=STSv1"'], None),
        (['"v=STSv1; id=;"'], None),
        ([f'"v=STSv1; id={"1" * 33};"'], None),
        (['"v=STSv2; id=1;"'], None),
    ],
)
async def test_policy_ids(texts: list[str], policy_id: str | None) -> None:
    async with (
        Nameserver({"_mta-sts.example.test": {"TXT": texts}}) as server,
        Resolver(server.settings(), SystemClock()) as resolver,
    ):
        assert (await find_policy_id(resolver, "example.test"))[1] == policy_id


def test_a_policy_is_read() -> None:
    policy = parse_policy(POLICY)
    assert policy == MtaStsPolicy(mode=StsMode.ENFORCE, hosts=("mx.example.test", "*.example.test"), max_age_s=86_400)
    assert parse_policy("version: STSv1\nmode: none\nmax_age: 99999999\nnew: x\n").max_age_s == MAX_AGE_S


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "version"),
        ("version: STSv2\nmode: none\nmax_age: 1", "version"),
        ("version: STSv1\nmode: hope\nmx: a.test\nmax_age: 1", "mode"),
        ("version: STSv1\nmode: enforce\nmax_age: 1", "no mail host"),
        ("version: STSv1\nmode: enforce\nmx: a.test", "max_age"),
        ("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -1", "max_age"),
        ("version: STSv1\nmode: enforce\nmx: a.*.test\nmax_age: 1", "mail hosts"),
        ("version: STSv1\nmode: enforce\nmx: *\nmax_age: 1", "mail hosts"),
    ],
)
def test_a_policy_that_is_none(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        parse_policy(text)


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("mx.example.test", True),
        ("MX.Example.test", True),
        ("a.sub.test", True),
        ("a.b.sub.test", False),  # §4.1: a star is one label
        ("sub.test", False),
        ("mx.example.test.evil.test", False),
    ],
)
def test_covers(host: str, covered: bool) -> None:
    policy = MtaStsPolicy(mode=StsMode.ENFORCE, hosts=("mx.example.test", "*.sub.test"), max_age_s=1)
    assert policy.covers(host) is covered


async def test_a_policy_is_fetched_from_a_host_that_proves_its_name(tmp_path: Path) -> None:
    async with (
        https(tmp_path, NAME, POLICY) as (site, trust),
        Nameserver(ZONE) as server,
        Resolver(server.settings(), SystemClock()) as resolver,
    ):
        policy = await fetch_policy(resolver, "example.test", trust, port=site.port, allowed=EVERYWHERE)
    assert policy.mode is StsMode.ENFORCE
    assert site.requests[0].startswith("GET /.well-known/mta-sts.txt HTTP/1.1\r\n")
    assert "Host: mta-sts.example.test\r\n" in site.requests[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": "301 Moved", "headers": "Location: https://127.0.0.1/"}, "301"),
        ({"status": "404 Not Found"}, "404"),
        ({"headers": "Content-Type: text/html"}, "text/html"),
        ({"body": POLICY + "x: y\r\n" * 20_000}, "longer"),
        ({"body": "hello"}, "version"),
    ],
)
async def test_what_is_no_policy_is_refused(tmp_path: Path, change: dict[str, str], says: str) -> None:
    async with https(tmp_path, NAME, POLICY) as (site, trust), Nameserver(ZONE) as server:
        vars(site).update(change)
        async with Resolver(server.settings(), SystemClock()) as resolver:
            with pytest.raises(PolicyError, match=says):
                await fetch_policy(resolver, "example.test", trust, port=site.port, allowed=EVERYWHERE)


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    async with (
        https(tmp_path, "example.test", POLICY) as (site, trust),
        Nameserver(ZONE) as server,
        Resolver(server.settings(), SystemClock()) as resolver,
    ):
        with pytest.raises(PolicyError, match=r"(?i)certificate"):
            await fetch_policy(resolver, "example.test", trust, port=site.port, allowed=EVERYWHERE)
    assert not site.requests


async def test_a_policy_is_valid_until_it_expires_despite_dns(engine: sa.Engine, tmp_path: Path) -> None:
    clock = SleepingClock()
    async with (
        https(tmp_path, NAME, POLICY) as (site, trust),
        Nameserver(ZONE, ttl_s=1) as server,
        Resolver(server.settings(), clock) as resolver,
    ):
        policies = StsPolicies(resolver, engine, clock, trust, https_port=site.port, allowed=EVERYWHERE)
        first = await policies.of("example.test")
        assert first is not None
        assert first.covers("mx.example.test")
        del server.zone["_mta-sts.example.test"]
        clock.advance(3_600_000)
        # Another process finds it in the store.
        others = StsPolicies(resolver, engine, clock, trust, https_port=site.port, allowed=EVERYWHERE)
        assert await others.of("example.test") == first
        clock.advance(86_400_000)
        assert await others.of("example.test") is None
        assert len(site.requests) == 1


async def test_a_new_id_fetches_the_policy_and_failure_keeps_the_old(engine: sa.Engine, tmp_path: Path) -> None:
    clock = SleepingClock()
    async with (
        https(tmp_path, NAME, POLICY) as (site, trust),
        Nameserver(ZONE, ttl_s=1) as server,
        Resolver(server.settings(), clock) as resolver,
    ):
        policies = StsPolicies(resolver, engine, clock, trust, https_port=site.port, allowed=EVERYWHERE)
        await policies.of("example.test")
        server.zone["_mta-sts.example.test"] = {"TXT": ['"v=STSv1; id=2;"']}
        site.status = "500 Oh"
        for _ in range(3):
            clock.advance(2_000)
            kept = await policies.of("example.test")
            assert kept is not None
            assert kept.mode is StsMode.ENFORCE
        assert len(site.requests) == 2  # §3.3: it was not asked again and again
        site.status, site.body = "200 OK", POLICY.replace("enforce", "testing")
        clock.advance(RETRY_MS)
        renewed = await policies.of("example.test")
        assert renewed is not None
        assert renewed.mode is StsMode.TESTING
