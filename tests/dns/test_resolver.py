"""No such name, no record and no answer are distinct results, each cached for its permitted time."""

from __future__ import annotations

import asyncio

import pytest

from postroad.clock import SystemClock
from postroad.dns.lookup import UNANSWERED_TTL_S, LookupStatus
from postroad.dns.record import Address, Kind, Mx, Record
from postroad.dns.resolver import Resolver
from postroad.settings import DnsSettings
from tests.dns.nameserver import Nameserver, Trouble
from tests.kit.clock import SleepingClock

ZONE = {
    "example.test": {"MX": ["10 mx.example.test."], "TXT": ['"one" "two"']},
    "mx.example.test": {"A": ["192.0.2.1", "192.0.2.2"]},
    "alias.test": {"CNAME": ["example.test."]},
    "round.test": {"CNAME": ["about.test."]},
    "about.test": {"CNAME": ["round.test."]},
    "below.deep.test": {"A": ["192.0.2.9"]},
    "long.test": {"TXT": [f'"{number} {"x" * 200}"' for number in range(40)]},
}


@pytest.mark.parametrize(
    ("name", "kind", "found", "records"),
    [
        ("mx.example.test", "A", LookupStatus.RECORDS, {Address("192.0.2.1"), Address("192.0.2.2")}),
        ("EXAMPLE.test.", "MX", LookupStatus.RECORDS, {Mx(10, "mx.example.test")}),
        ("example.test", "AAAA", LookupStatus.NO_RECORD, set()),
        ("deep.test", "A", LookupStatus.NO_RECORD, set()),  # RFC 8020: something is below it
        ("nobody.test", "A", LookupStatus.NO_NAME, set()),
        ("alias.test", "MX", LookupStatus.RECORDS, {Mx(10, "mx.example.test")}),
        ("alias.test", "AAAA", LookupStatus.NO_RECORD, set()),
        ("round.test", "A", LookupStatus.NO_ANSWER, set()),
        ("x" * 64 + ".test", "A", LookupStatus.NO_NAME, set()),
        ("two..dots", "A", LookupStatus.NO_NAME, set()),
    ],
)
async def test_lookups_and_their_status(name: str, kind: Kind, found: LookupStatus, records: set[Record]) -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(), SystemClock()) as resolver:
        answer = await resolver.lookup(name, kind)
    assert (answer.status, set(answer.records)) == (found, records)


async def test_the_end_of_a_cname_chain_is_canonical() -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(), SystemClock()) as resolver:
        assert (await resolver.lookup("alias.test", "MX")).canonical == "example.test"


@pytest.mark.parametrize("trouble", [Trouble.SERVFAIL, Trouble.REFUSED, Trouble.SILENT, Trouble.GARBAGE])
async def test_a_failure_is_no_answer_and_not_no_record(trouble: Trouble) -> None:
    async with (
        Nameserver(ZONE, troubles={"example.test": trouble}) as server,
        Resolver(server.settings(timeout_ms=300), SystemClock()) as resolver,
    ):
        answer = await resolver.lookup("example.test", "MX")
    assert (answer.status, answer.ttl_s) == (LookupStatus.NO_ANSWER, UNANSWERED_TTL_S)
    assert answer.why


async def test_a_closed_port_is_no_answer() -> None:
    async with Nameserver(ZONE) as server:
        settings = server.settings(timeout_ms=300)
    async with Resolver(settings, SystemClock()) as resolver:
        assert (await resolver.lookup("example.test", "MX")).status is LookupStatus.NO_ANSWER


@pytest.mark.parametrize("name", ["long.test", "example.test"])
async def test_a_truncated_response_is_fetched_over_tcp(name: str) -> None:
    troubles = {"example.test": Trouble.TRUNCATED, "long.test": Trouble.TRUNCATED}
    async with Nameserver(ZONE, troubles=troubles) as server:
        async with Resolver(server.settings(), SystemClock()) as resolver:
            answer = await resolver.lookup(name, "TXT")
        assert server.by_tcp == 1
    assert len(answer.records) == len(ZONE[name]["TXT"])


async def test_an_answer_is_cached_for_its_ttl() -> None:
    clock = SleepingClock()
    async with Nameserver(ZONE, ttl_s=60) as server, Resolver(server.settings(), clock) as resolver:
        for _ in range(3):
            await resolver.lookup("example.test", "MX")
        assert server.asked["example.test", "MX"] == 1
        server.zone["example.test"]["MX"] = ["5 other.test."]
        clock.advance(59_999)
        assert (await resolver.lookup("example.test", "MX")).records == (Mx(10, "mx.example.test"),)
        clock.advance(1)
        assert (await resolver.lookup("example.test", "MX")).records == (Mx(5, "other.test"),)


async def test_a_failure_is_cached_briefly() -> None:
    clock = SleepingClock()
    async with (
        Nameserver(ZONE, troubles={"example.test": Trouble.SERVFAIL}) as server,
        Resolver(server.settings(), clock) as resolver,
    ):
        assert (await resolver.lookup("example.test", "MX")).status is LookupStatus.NO_ANSWER
        server.troubles.clear()
        assert (await resolver.lookup("example.test", "MX")).status is LookupStatus.NO_ANSWER
        clock.advance(UNANSWERED_TTL_S * 1000)
        assert (await resolver.lookup("example.test", "MX")).status is LookupStatus.RECORDS


async def test_concurrent_lookups_share_one_query() -> None:
    async with Nameserver(ZONE) as server, Resolver(server.settings(), SystemClock()) as resolver:
        asking = [asyncio.create_task(resolver.lookup("example.test", "MX")) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        rest = [answer for answer in answers[1:] if not isinstance(answer, BaseException)]
        assert [answer.status for answer in rest] == [LookupStatus.RECORDS] * 49
        assert server.asked["example.test", "MX"] == 1


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_ad_bit_counts_only_from_a_trusted_resolver(trusted: bool) -> None:
    async with (
        Nameserver(ZONE, signed=["example.test"]) as server,
        Resolver(server.settings(trust_ad=trusted), SystemClock()) as resolver,
    ):
        assert (await resolver.lookup("example.test", "MX")).secure is trusted
        assert not (await resolver.lookup("mx.example.test", "A")).secure
        # RFC 4035 §3.2.3: all of the answer, the way to it included.
        assert not (await resolver.lookup("alias.test", "MX")).secure


@pytest.mark.parametrize("wrong", ["localhost", "192.0.2.1:0", "192.0.2.1:x", "[::1]:99999", "1.2.3"])
def test_a_nameserver_is_an_address(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"nameservers"):
        DnsSettings(nameservers=(wrong,))


def test_nameservers_with_and_without_ports() -> None:
    DnsSettings(nameservers=("192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:5353", "[2001:db8::1]"))


async def test_a_lookup_ends_at_its_time_limit() -> None:
    async with (
        Nameserver(ZONE, troubles={"example.test": Trouble.SILENT}) as server,
        Resolver(server.settings(timeout_ms=500), SystemClock()) as resolver,
    ):
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        assert (await resolver.lookup("example.test", "MX")).status is LookupStatus.NO_ANSWER
        assert 0.45 < loop.time() - began_s < 5
        assert server.asked["example.test", "MX"] > 1
