"""The tree walk of RFC 9989 §4.10 with zones: the policy of a domain, and its organisational domain."""

from __future__ import annotations

import pytest

from postroad.clock import SystemClock
from postroad.dns.dmarc import NoAnswerError, aligned, walk
from postroad.dns.dmarc_record import DmarcPolicy, parse_dmarc
from postroad.dns.resolver import Resolver
from postroad.dns.tags import RecordError
from tests.dns.nameserver import Nameserver, Trouble


def zone(**records: str) -> dict[str, dict[str, list[str]]]:
    return {f"_dmarc.{name.replace('_', '.')}": {"TXT": [f'"{text}"']} for name, text in records.items()}


ZONE = {
    **zone(
        acme_dev="v=DMARC1; p=reject; sp=quarantine; np=none",
        news_acme_dev="v=DMARC1; p=none",
        bank="v=DMARC1; p=reject; psd=y; np=reject",
        own_host_dev="v=DMARC1; p=none; psd=n",
        host_dev="v=DMARC1; p=reject",
    ),
    "_dmarc.two.dev": {"TXT": ['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"']},
    "_dmarc.noisy.dev": {"TXT": ['"v=spf1 -all"', '"v=DMARC1; p=reject"']},
}


@pytest.mark.parametrize(
    ("domain", "policy_at", "organisation"),
    [
        ("acme.dev", "acme.dev", "acme.dev"),
        ("news.acme.dev", "news.acme.dev", "acme.dev"),
        ("a.b.acme.dev", "acme.dev", "acme.dev"),
        ("savings.bank", "bank", "savings.bank"),  # one label below a public suffix
        ("a.savings.bank", "bank", "savings.bank"),
        ("bank", "bank", "bank"),
        ("x.own.host.dev", "own.host.dev", "own.host.dev"),  # psd=n ends the walk there
        ("own.host.dev", "own.host.dev", "own.host.dev"),
        ("two.dev", None, "two.dev"),  # of two records neither counts
        ("noisy.dev", "noisy.dev", "noisy.dev"),
        ("nobody.dev", None, "nobody.dev"),
    ],
)
async def test_walks(domain: str, policy_at: str | None, organisation: str) -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(), SystemClock()) as resolver:
        found = await walk(resolver, domain)
    assert (found.policy.domain if found.policy else None, found.organisation) == (policy_at, organisation)


async def test_a_long_name_takes_eight_questions() -> None:
    domain = ".".join("abcdefghijklm") + ".acme.dev"
    async with Nameserver(ZONE) as server, Resolver(server.settings(), SystemClock()) as resolver:
        found = await walk(resolver, domain)
        asked = [name for name, _ in server.asked]
    assert found.organisation == "acme.dev"
    assert asked[:2] == [f"_dmarc.{domain}", "_dmarc.i.j.k.l.m.acme.dev"]
    assert len(asked) == 8


@pytest.mark.parametrize(
    ("first", "second", "strict", "expected"),
    [
        ("news.acme.dev", "bounces.acme.dev", False, True),
        ("news.acme.dev", "bounces.acme.dev", True, False),
        ("acme.dev", "ACME.dev.", True, True),
        ("one.bank", "two.bank", False, False),
        ("a.one.bank", "b.one.bank", False, True),
        ("x.own.host.dev", "host.dev", False, False),
    ],
)
async def test_alignment(first: str, second: str, strict: bool, expected: bool) -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(), SystemClock()) as resolver:
        assert await aligned(resolver, first, second, strict=strict) is expected


async def test_silence_on_the_way_is_said_and_not_taken_for_no_record() -> None:
    async with (
        Nameserver(ZONE, troubles={"_dmarc.dev": Trouble.SERVFAIL}) as server,
        Resolver(server.settings(), SystemClock()) as resolver,
    ):
        with pytest.raises(NoAnswerError, match=r"_dmarc\.dev"):
            await walk(resolver, "news.acme.dev")


def test_defaults_follow_from_each_other() -> None:
    record = parse_dmarc("v=DMARC1; p=reject")
    assert (record.subdomain_policy, record.missing_policy) == (DmarcPolicy.REJECT, DmarcPolicy.REJECT)
    record = parse_dmarc("v=DMARC1; p=reject; sp=none")
    assert (record.subdomain_policy, record.missing_policy) == (DmarcPolicy.NONE, DmarcPolicy.NONE)


def test_an_invalid_policy_is_none_only_with_report_addresses() -> None:
    record = parse_dmarc("v=DMARC1; p=refuse; rua=mailto:d@acme.dev")
    assert record.policy is DmarcPolicy.NONE
    assert record.faults
    with pytest.raises(RecordError, match="p=refuse"):
        parse_dmarc("v=DMARC1; p=refuse")
