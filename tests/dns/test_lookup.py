"""Interpretation of responses: a valid one gives its records, any other one raises one type of error."""

from __future__ import annotations

import time
from contextlib import suppress
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.clock import SystemClock
from postroad.dns.lookup import (
    MAX_NEGATIVE_TTL_S,
    MAX_TTL_S,
    Lookup,
    LookupStatus,
    UnusableError,
    interpret,
    name_text,
    parse_name,
)
from postroad.dns.record import Address, Kind, Mx, Pointer, Record, Tlsa, Txt
from postroad.dns.resolver import Resolver
from postroad.settings import DnsSettings
from tests.dns.forger import question, question_of, response, rr, speaking

LABELS = st.one_of(st.sampled_from([b"a", b"B", b"mail", b"x-1", b"_dmarc"]), st.binary(min_size=1, max_size=12))
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(lambda labels: dns.name.Name([*labels, b""]))
TTLS = st.integers(0, 2**31 - 1)
ASKED: tuple[Kind, ...] = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "TLSA", "TXT")
MAX_CNAMES = 16


def rdata(kind: Kind, name: dns.name.Name, octets: bytes) -> dns.rdata.Rdata:
    """Return some record of a kind, made of a name and 16 octets."""
    host = name.to_wire() or b""
    match kind:
        case "A":
            wire = octets[:4]
        case "AAAA":
            wire = octets
        case "MX":
            wire = octets[:2] + host
        case "TXT":
            wire = bytes([5]) + octets[:5] + bytes([0, 10]) + octets[:10]
        case "TLSA":
            wire = octets[:2] + b"\1" + octets * 2
        case "SOA":
            wire = host * 2 + octets + octets[:4]
        case _:
            wire = host
    return dns.rdata.from_wire(dns.rdataclass.IN, kind, wire, 0, len(wire))


@st.composite
def responses(draw: st.DrawFn) -> tuple[Kind, dns.message.QueryMessage]:
    """Draw a response as servers make them, with a few names, to a query for the first of them."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4))
    kind = draw(st.sampled_from(ASKED))
    query = dns.message.make_query(names[0], kind, use_edns=draw(st.sampled_from([None, 0])))
    made = dns.message.make_response(query)
    made.set_rcode(draw(st.sampled_from([dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL])))
    made.flags |= draw(st.sampled_from([0, dns.flags.AD]))
    for section, kinds in (
        (made.answer, (kind, kind, "CNAME", "A", "TXT")),
        (made.authority, ("NS", "SOA")),
        (made.additional, ("A", "AAAA")),
    ):
        for _ in range(draw(st.integers(0, 4))):
            record = rdata(
                draw(st.sampled_from(kinds)), draw(st.sampled_from(names)), draw(st.binary(min_size=16, max_size=16))
            )
            owner = draw(st.sampled_from([*names, dns.name.root] if section is made.authority else names))
            # One CNAME at a name (RFC 1034 §3.6.2), one SOA in all: which of several counts is anybody's choice.
            alone = record.rdtype in (dns.rdatatype.CNAME, dns.rdatatype.SOA)
            if not any(alone and each.rdtype == record.rdtype and _excludes(each, owner) for each in section):
                section.append(dns.rrset.from_rdata(owner, draw(TTLS), record))
    assert isinstance(made, dns.message.QueryMessage)
    return kind, made


def _excludes(other: dns.rrset.RRset, owner: dns.name.Name) -> bool:
    return other.rdtype == dns.rdatatype.SOA or other.name == owner


def in_our_form(record: dns.rdata.Rdata) -> Record:
    match record:
        case dns.rdtypes.ANY.MX.MX():
            return Mx(record.preference, name_text(record.exchange).lower())
        case dns.rdtypes.ANY.TXT.TXT():
            return Txt(b"".join(record.strings))
        case dns.rdtypes.ANY.TLSA.TLSA():
            return Tlsa(record.usage, record.selector, record.mtype, record.cert)
        case dns.rdtypes.ANY.CNAME.CNAME() | dns.rdtypes.ANY.PTR.PTR():
            return Pointer(name_text(record.target).lower())
        case _ if hasattr(record, "target"):
            return Pointer(name_text(record.target).lower())
        case _:
            return Address(str(ip_address(record.to_text())))


def comparable(record: Record) -> Record:
    """Return a record with names in lower case, and addresses in one form."""
    match record:
        case Mx(preference=preference, exchange=exchange):
            return Mx(preference, exchange.lower())
        case Pointer(target=target):
            return Pointer(target.lower())
        case Address(address=address):
            return Address(str(ip_address(address)))
        case _:
            return record


def follow(made: dns.message.QueryMessage, kind: Kind) -> tuple[dns.name.Name, list[dns.rrset.RRset], int] | None:
    """Return the end of the CNAME chain, its records, and the minimum TTL. None: the chain does not end."""
    name, ttl_s = made.question[0].name, 2**31
    for _ in range(MAX_CNAMES):
        here = [each for each in made.answer if each.name == name]
        held = [each for each in here if each.rdtype == dns.rdatatype.from_text(kind)]
        if held:
            return name, held, min(ttl_s, *(each.ttl for each in held))
        alias = next((each for each in here if each.rdtype == dns.rdatatype.CNAME), None)
        if alias is None:
            return name, [], ttl_s
        ttl_s, name = min(ttl_s, alias.ttl), alias[0].target
    return None


def negative_ttl_s(made: dns.message.QueryMessage, name: dns.name.Name) -> int:
    for each in made.authority:
        if each.rdtype == dns.rdatatype.SOA and name.is_subdomain(each.name):
            soa = each[0]
            assert isinstance(soa, dns.rdtypes.ANY.SOA.SOA)
            return min(each.ttl, soa.minimum, MAX_NEGATIVE_TTL_S)
    return 300


@settings(deadline=None)
@given(made=responses())
def test_a_response_means_what_its_records_say(made: tuple[Kind, dns.message.QueryMessage]) -> None:
    kind, sent = made
    asked = sent.question[0].name
    received = dns.message.from_wire(sent.to_wire(max_size=65_535))
    end = follow(sent, kind)
    fits = sent.rcode() == dns.rcode.NOERROR or (sent.rcode() == dns.rcode.NXDOMAIN and end is not None and not end[1])
    if end is None or not fits:
        with pytest.raises(UnusableError):
            interpret(asked, kind, received, trust_ad=True)
        return
    canonical, held, ttl_s = end
    lookup = interpret(asked, kind, received, trust_ad=True)
    assert lookup.name == name_text(asked).lower()
    assert lookup.canonical.lower() == name_text(canonical).lower()
    assert lookup.secure is bool(sent.flags & dns.flags.AD)
    assert {comparable(record) for record in lookup.records} == {in_our_form(each[0]) for each in held}
    if held:
        assert (lookup.status, lookup.ttl_s) == (LookupStatus.RECORDS, min(ttl_s, MAX_TTL_S))
    else:
        absent = LookupStatus.NO_NAME if sent.rcode() == dns.rcode.NXDOMAIN else LookupStatus.NO_RECORD
        assert (lookup.status, lookup.ttl_s) == (absent, min(ttl_s, negative_ttl_s(sent, canonical)))


def read_or_refuse(octets: bytes, kind: Kind, name: str = "a.test") -> None:
    """Only the two errors that the resolver expects are raised."""
    with suppress(dns.exception.DNSException, UnusableError):
        interpret(parse_name(name), kind, dns.message.from_wire(octets), trust_ad=True)


@settings(deadline=None)
@given(octets=st.binary(max_size=300), kind=st.sampled_from(ASKED))
def test_noise_raises_only_expected_errors(octets: bytes, kind: Kind) -> None:
    read_or_refuse(octets, kind)
    # After the head of a valid response, so that the parser gets as far as the records.
    asked = question("a.test", kind)
    read_or_refuse(octets[:2] + b"\x84\x00\x00\x01\x00\x02\x00\x01\x00\x01" + asked + octets, kind)
    read_or_refuse(octets[:2] + b"\x84\x03\x00\x01\x00\x00\x00\x02\x00\x01" + asked + octets, kind)


@settings(deadline=None)
@given(
    made=responses(),
    changes=st.lists(st.tuples(st.integers(12, 2_000), st.sampled_from([0, 1, 0x40, 0x80, 0xC0, 0xFF]))),
    cut=st.integers(0, 2_000),
)
def test_a_damaged_response_raises_only_expected_errors(
    made: tuple[Kind, dns.message.QueryMessage], changes: list[tuple[int, int]], cut: int
) -> None:
    kind, sent = made
    name = name_text(sent.question[0].name)
    octets = bytearray(sent.to_wire(max_size=65_535))
    for place, octet in changes:
        octets[place % len(octets)] = octet
    read_or_refuse(bytes(octets), kind, name)
    read_or_refuse(bytes(octets[:cut]), kind, name)


QUERY = dns.message.make_query("a.test", "A", use_edns=0).to_wire()
A_RECORD = rr("A", b"\xc0\0\2\1")


def meaning(*answers: bytes, flags: int = 0x8180, counts: tuple[int, int, int, int] | None = None) -> Lookup:
    """Interpret a response about A of a.test. The name of the question is at offset 12."""
    octets = response(QUERY, *answers, flags=flags, counts=counts)
    return interpret(parse_name("a.test"), "A", dns.message.from_wire(octets), trust_ad=True)


def test_pointers_to_pointers_end_early() -> None:
    # 8,000 pointers, each to the one before it, and a thousand names that begin there.
    hops = b"".join((0xC000 + place).to_bytes(2, "big") for place in range(34, 16_000, 2))
    filler = rr("NULL", b"\0" + hops, owner=b"\0")
    last = (0xC000 + 15_998).to_bytes(2, "big") + A_RECORD[2:]
    began_s = time.process_time()
    with pytest.raises(dns.exception.DNSException):
        meaning(filler, *[last] * 1_000)
    assert time.process_time() - began_s < 1


def test_the_upper_bits_of_the_return_code_count() -> None:
    badvers = b"\0\0\x29\x04\xd0\x01\0\0\0\0\0"
    with pytest.raises(UnusableError, match="BADVERS"):
        meaning(badvers, counts=(1, 0, 0, 1))


def test_a_ttl_of_32_bits_is_zero() -> None:
    assert meaning(A_RECORD).ttl_s == 60
    assert meaning(rr("A", b"\xc0\0\2\1", ttl_s=0x80000000)).ttl_s == 0  # RFC 2181 §8


OTHER = b"\5other\4test\0"
SOA = b"\2ns" + OTHER + b"\4host" + OTHER + bytes(16) + (40).to_bytes(4, "big")


def test_records_of_other_names_are_ignored() -> None:
    lookup = meaning(rr("A", b"\xc6\x33\x64\x42", owner=OTHER), A_RECORD, rr("A", b"\xc6\x33\x64\x43", owner=b"\0"))
    assert lookup.records == (Address("192.0.2.1"),)
    assert meaning(rr("A", b"\xc6\x33\x64\x42", owner=OTHER)).status is LookupStatus.NO_RECORD


def test_answers_in_other_sections_are_ignored() -> None:
    assert meaning(A_RECORD, counts=(1, 0, 1, 0)).status is LookupStatus.NO_RECORD
    assert meaning(A_RECORD, counts=(1, 0, 0, 1)).status is LookupStatus.NO_RECORD


@pytest.mark.parametrize(
    ("owner", "ttl_s"),
    [(b"\xc0\x0c", 40), (b"\4test\0", 40), (b"\0", 40), (OTHER, 300), (b"\1b\xc0\x0c", 300), (b"\3est\0", 300)],
    ids=["the name", "its parent", "the root", "another name", "a name below", "a suffix of letters"],
)
def test_only_the_soa_of_its_zone_limits_a_negative_answer(owner: bytes, ttl_s: int) -> None:
    assert meaning(rr("SOA", SOA, owner=owner, ttl_s=50), counts=(1, 0, 1, 0)).ttl_s == ttl_s


async def test_records_of_other_names_are_not_cached() -> None:
    def poison(query: bytes) -> list[bytes]:
        asked.append(question_of(query))
        return [response(query, A_RECORD, rr("A", b"\xc6\x33\x64\x42", owner=b"\6victim\4test\0"))]

    asked: list[bytes] = []
    async with (
        speaking(poison) as (server, _),
        Resolver(DnsSettings(nameservers=(str(server),)), SystemClock()) as resolver,
    ):
        await resolver.lookup("a.test", "A")
        victim = await resolver.lookup("victim.test", "A")
    assert asked == [question("a.test", "A"), question("victim.test", "A")]
    assert Address("192.0.2.1") in victim.records


async def test_a_tlsa_record_of_the_wrong_length_leaves_the_others() -> None:
    right, short = b"\3\1\1" + b"\xab" * 32, b"\3\1\1" + b"\xab" * 31
    async with (
        speaking(lambda query: [response(query, rr("TLSA", short), rr("TLSA", right))]) as (server, _),
        Resolver(DnsSettings(nameservers=(str(server),)), SystemClock()) as resolver,
    ):
        lookup = await resolver.lookup("_25._tcp.mx.test", "TLSA")
    assert set(lookup.records) == {Tlsa(3, 1, 1, b"\xab" * 32), Tlsa(3, 1, 1, b"\xab" * 31)}


@pytest.mark.parametrize("name", ["two..dots", "x" * 64, ".".join(["x" * 60] * 5), "\ud800.test", ".a"])
def test_invalid_names_cannot_be_looked_up(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_name(name)


def test_a_name_in_unicode_is_looked_up_in_ascii() -> None:
    assert parse_name("bücher.test") == parse_name("xn--bcher-kva.test")
