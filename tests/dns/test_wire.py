"""Answers that are right are read as dnspython reads them; of others comes nothing but an error."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

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
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.dns.lookup import MAX_NEGATIVE_TTL_S, MAX_TTL_S, LookupStatus, UnusableError, interpret
from postroad.dns.record import Address, Kind, Mx, Pointer, Record, Tlsa, Txt
from postroad.dns.wire import PAYLOAD_BYTES, TYPES, WireError, ask_for, read_reply

LABELS = st.one_of(st.sampled_from([b"a", b"B", b"mail", b"x-1", b"_dmarc"]), st.binary(min_size=1, max_size=12))
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(lambda labels: dns.name.Name([*labels, b""]))
TTLS = st.integers(0, 2**31 - 1)
ASKED: tuple[Kind, ...] = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "TLSA", "TXT")
ID = b"\x12\x34"


def rdata(kind: Kind, name: dns.name.Name, octets: bytes) -> dns.rdata.Rdata:
    """Some record of a kind, made of a name and 16 octets."""
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
            wire = octets[:2] + b"\1" + octets * 2  # dnspython refuses digests of another length
        case "SOA":
            wire = host * 2 + octets + octets[:4]
        case _:
            wire = host
    return dns.rdata.from_wire(dns.rdataclass.IN, kind, wire, 0, len(wire))


@st.composite
def responses(draw: st.DrawFn) -> tuple[Kind, dns.message.QueryMessage]:
    """A response as servers make them, to a question about the first of a few names that it is all about."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4))
    kind = draw(st.sampled_from(ASKED))
    query = dns.message.make_query(names[0], kind, use_edns=draw(st.sampled_from([None, 0])), payload=PAYLOAD_BYTES)
    response = dns.message.make_response(query)
    response.set_rcode(draw(st.sampled_from([dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL])))
    response.flags |= draw(st.sampled_from([0, dns.flags.AD]))
    for section, kinds in (
        (response.answer, (kind, kind, "CNAME", "A", "TXT")),
        (response.authority, ("NS", "SOA")),
        (response.additional, ("A", "AAAA")),
    ):
        for _ in range(draw(st.integers(0, 4))):
            record = rdata(
                draw(st.sampled_from(kinds)), draw(st.sampled_from(names)), draw(st.binary(min_size=16, max_size=16))
            )
            owner = draw(st.sampled_from([*names, dns.name.root] if section is response.authority else names))
            # One CNAME at a name (RFC 1034 §3.6.2), one SOA in all: which of several counts is anybody's choice.
            alone = record.rdtype in (dns.rdatatype.CNAME, dns.rdatatype.SOA)
            if not any(alone and each.rdtype == record.rdtype and _excludes(each, owner) for each in section):
                section.append(dns.rrset.from_rdata(owner, draw(TTLS), record))
    assert isinstance(response, dns.message.QueryMessage)
    return kind, response


def _excludes(other: dns.rrset.RRset, owner: dns.name.Name) -> bool:
    return other.rdtype == dns.rdatatype.SOA or other.name == owner


def in_our_form(record: dns.rdata.Rdata) -> Record:
    match record:
        case dns.rdtypes.ANY.MX.MX():
            return Mx(record.preference, _text(record.exchange).lower())
        case dns.rdtypes.ANY.TXT.TXT():
            return Txt(b"".join(record.strings))
        case dns.rdtypes.ANY.TLSA.TLSA():
            return Tlsa(record.usage, record.selector, record.mtype, record.cert)
        case dns.rdtypes.ANY.CNAME.CNAME() | dns.rdtypes.ANY.PTR.PTR():
            return Pointer(_text(record.target).lower())
        case _ if hasattr(record, "target"):
            return Pointer(_text(record.target).lower())
        case _:
            return Address(str(ip_address(record.to_text())))


def comparable(record: Record) -> Record:
    """Names in small letters, addresses in one form."""
    match record:
        case Mx(preference=preference, exchange=exchange):
            return Mx(preference, exchange.lower())
        case Pointer(target=target):
            return Pointer(target.lower())
        case Address(address=address):
            return Address(str(ip_address(address)))
        case _:
            return record


def _text(name: dns.name.Name) -> str:
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True)


@given(made=responses())
def test_an_answer_is_read_as_dnspython_reads_it(made: tuple[Kind, dns.message.QueryMessage]) -> None:
    kind, response = made
    asked = _text(response.question[0].name).lower()
    question = ask_for(asked, kind)
    octets = response.to_wire(max_size=65_535)
    theirs = dns.message.from_wire(octets)
    assert isinstance(theirs, dns.message.QueryMessage)
    try:
        ours = interpret(question, read_reply(octets, question), trust_ad=True)
    except UnusableError:
        if theirs.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            with pytest.raises((dns.message.ChainTooLong, dns.message.AnswerForNXDOMAIN)):
                theirs.resolve_chaining()
        return
    chain = theirs.resolve_chaining()
    assert theirs.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    assert ours.canonical.lower() == _text(chain.canonical_name).lower()
    assert ours.secure is bool(theirs.flags & dns.flags.AD)
    assert {comparable(record) for record in ours.records} == {in_our_form(each) for each in chain.answer or ()}
    if ours.status is LookupStatus.RECORDS:
        assert ours.ttl_s == min(chain.minimum_ttl, MAX_TTL_S)
    else:
        assert ours.ttl_s == min(chain.minimum_ttl, MAX_NEGATIVE_TTL_S)
        assert ours.status is (LookupStatus.NO_NAME if theirs.rcode() == dns.rcode.NXDOMAIN else LookupStatus.NO_RECORD)


@given(name=NAMES, kind=st.sampled_from(ASKED))
def test_a_question_is_one_as_dnspython_reads_it(name: dns.name.Name, kind: Kind) -> None:
    query = dns.message.from_wire(ask_for(_text(name).lower(), kind).message(ID))
    (asked,) = query.question
    assert (asked.name, asked.rdtype, asked.rdclass) == (name, TYPES[kind], dns.rdataclass.IN)
    assert (query.id, query.edns, query.payload) == (0x1234, 0, PAYLOAD_BYTES)
    assert query.flags == dns.flags.RD | dns.flags.AD


def reads_or_refuses(octets: bytes, kind: Kind, name: str = "a.test") -> None:
    question = ask_for(name, kind)
    with suppress(WireError, UnusableError):
        interpret(question, read_reply(octets, question), trust_ad=True)


@given(octets=st.binary(max_size=300), kind=st.sampled_from(ASKED))
def test_whatever_arrives_is_read_or_refused(octets: bytes, kind: Kind) -> None:
    reads_or_refuses(octets, kind)
    # Behind the head of an answer that fits, so that it is not refused for the first thing that is wrong with it.
    question = ask_for("a.test", kind).octets
    reads_or_refuses(octets[:2] + b"\x84\x00\x00\x01\x00\x02\x00\x01\x00\x01" + question + octets, kind)
    reads_or_refuses(octets[:2] + b"\x84\x03\x00\x01\x00\x00\x00\x02\x00\x01" + question + octets, kind)


@given(
    made=responses(),
    changes=st.lists(st.tuples(st.integers(12, 2_000), st.sampled_from([0, 1, 0x40, 0x80, 0xC0, 0xFF]))),
    cut=st.integers(0, 2_000),
)
def test_a_spoilt_answer_is_read_or_refused(
    made: tuple[Kind, dns.message.QueryMessage], changes: list[tuple[int, int]], cut: int
) -> None:
    kind, response = made
    octets = bytearray(response.to_wire(max_size=65_535))
    for place, octet in changes:
        octets[place % len(octets)] = octet
    reads_or_refuses(bytes(octets), kind, _text(response.question[0].name).lower())
    reads_or_refuses(bytes(octets[:cut]), kind, _text(response.question[0].name).lower())


def answer(*records: bytes, flags: int = 0x8180, asked: bytes | None = None, counts: bytes | None = None) -> bytes:
    """An answer about A of a.test. Records begin with the names of their owners; 12 is where the question's is."""
    question = ask_for("a.test", "A").octets if asked is None else asked
    counts = counts or b"\0\x01" + len(records).to_bytes(2, "big") + b"\0\0\0\0"
    return ID + flags.to_bytes(2, "big") + counts + question + b"".join(records)


A_RECORD = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\2\1"
RIGHT = answer(A_RECORD)


def test_the_answer_that_is_spoilt_below_is_right() -> None:
    assert read_reply(RIGHT, ask_for("a.test", "A")).answers[0].record == Address("192.0.2.1")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (answer(A_RECORD, flags=0x0180), "no answer"),
        (answer(A_RECORD, flags=0xA980), "no answer"),  # an UPDATE's
        (answer(A_RECORD, asked=ask_for("b.test", "A").octets), "another question"),
        (answer(A_RECORD, asked=ask_for("a.test", "MX").octets), "another question"),
        (answer(A_RECORD, asked=ask_for("a.test", "A").octets[:-1] + b"\3"), "another question"),
        (answer(A_RECORD, asked=b"", counts=b"\0\0\0\x01\0\0\0\0"), "another question"),
        (answer(A_RECORD, counts=b"\0\1\0\2\0\0\0\0"), "breaks off"),
        (answer(A_RECORD[:-1]), "breaks off"),
        (answer(A_RECORD + b"\0"), "something follows"),
        (answer(A_RECORD[:-6] + b"\0\x03\xc0\0\2"), "an address has 3 octets"),
        (answer(b"\xc0\x18" + A_RECORD[2:]), "leads forward"),
        (answer(b"\xc0\x0e" + A_RECORD[2:], asked=b"\1a\xc0\x0c" + b"\0\1\0\1"), "another question"),
        (answer(b"\1b\xc0\x18" + A_RECORD[2:]), "leads back to itself"),
        (answer(b"\x80\x0c" + A_RECORD[2:]), "no known form"),
        (answer(b"\x3f" + b"x" * 63 + b"\xc0\x18" + A_RECORD[2:]), "leads back to itself"),
        (answer((b"\x3f" + b"x" * 63) * 4 + b"\0" + A_RECORD[2:]), "longer than names are"),
    ],
)
def test_what_is_no_answer_is_refused_with_the_reason(wrong: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        read_reply(wrong, ask_for("a.test", "A"))


def test_a_name_of_pointers_to_pointers_ends_early() -> None:
    # 8,000 pointers, each to the one before: of a thousand names that begin there, reading takes no time to speak of.
    hops = b"".join((0xC000 + place).to_bytes(2, "big") for place in range(34, 16_000, 2))
    filler = b"\0\0\x10\0\x01\0\0\0\0" + (len(hops) + 1).to_bytes(2, "big") + b"\0"
    last = (0xC000 + 15_998).to_bytes(2, "big") + A_RECORD[2:]
    with pytest.raises(WireError, match="too many parts"):
        read_reply(answer(filler + hops, *[last] * 1_000), ask_for("a.test", "A"))


def test_the_letters_of_the_question_may_come_back_in_another_case() -> None:
    asked = ask_for("a.test", "A").octets.replace(b"test", b"TeSt")
    assert read_reply(answer(A_RECORD, asked=asked), ask_for("a.test", "A")).answers


def test_bits_of_the_return_code_are_in_edns() -> None:
    badvers = b"\0\0\x29\x04\xd0\x01\0\0\0\0\0"
    octets = answer(badvers, counts=b"\0\1\0\0\0\0\0\1")
    assert read_reply(octets, ask_for("a.test", "A")).rcode == dns.rcode.BADVERS


def test_a_ttl_of_32_bits_is_none() -> None:
    octets = answer(A_RECORD.replace(b"\0\0\0\x3c", b"\x80\0\0\0"))  # RFC 2181 §8
    assert read_reply(octets, ask_for("a.test", "A")).answers[0].ttl_s == 0


@pytest.mark.parametrize("name", ["two..dots", "x" * 64, ".".join(["x" * 60] * 5), "\ud800.test", ".a"])
def test_what_is_no_name_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(WireError):
        ask_for(name, "A")


def test_a_name_in_other_letters_is_asked_for_as_domains_have_it() -> None:
    assert ask_for("bücher.test", "A") == ask_for("xn--bcher-kva.test", "A")
