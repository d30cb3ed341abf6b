"""Questions and answers as octets: RFC 1035 §4, with EDNS (RFC 6891). docs/adr says why it is written here.

What arrives is anybody's. Whatever it is, reading it ends soon, in a reply or in a WireError.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import cache
from socket import AF_INET6, inet_ntoa, inet_ntop
from typing import NamedTuple

import dns.exception
import dns.name
from msgspec import Struct

from postroad.dns.record import Address, Kind, Mx, Pointer, Record, Soa, Tlsa, Txt

MAX_NAME_OCTETS = 255
MAX_PARTS = 255
"""Labels and pointers of one name: of the former no name holds more than 127, of the latter no server needs as many."""
PAYLOAD_BYTES = 1_232
"""What UDP carries without fragments; what is longer is asked for again by TCP (RFC 7766)."""

TYPES: dict[Kind, int] = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "TLSA": 52,
}
_KINDS = {number: kind for kind, number in TYPES.items()}
_OPT = 41
_IN = 1

_QR, _OPCODE, _TC, _RD, _AD, _RCODE = 0x8000, 0x7800, 0x0200, 0x0100, 0x0020, 0x000F
NO_ERROR, FORM_ERROR, SERVER_FAILURE, NO_NAME, NOT_IMPLEMENTED, REFUSED = range(6)
_MAY_LACK_THE_QUESTION = frozenset({FORM_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED})

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_SOA_TIMES = struct.Struct("!5I")
# RFC 6840 §5.7: AD in a question asks for AD in the answer.
_HEAD_OF_QUESTION = _HEADER.pack(0, _RD | _AD, 1, 0, 0, 1)[2:]
_EDNS = b"\0" + _RECORD.pack(_OPT, PAYLOAD_BYTES, 0, 0)

PLAIN_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_PLAIN_OCTETS = re.compile(rb"[A-Za-z0-9_.-]*")


class WireError(Exception):
    """These octets are no answer to the question, or no message at all. Says why."""


class Question(Struct, frozen=True):
    """What is asked. ``octets``: name, type and class, as they come back with the answer."""

    name: str
    kind: Kind
    octets: bytes

    def message(self, id_: bytes) -> bytes:
        return id_ + _HEAD_OF_QUESTION + self.octets + _EDNS


class Held(NamedTuple):
    """A record, and whose it is: a name in small letters, without its last dot."""

    owner: str
    kind: Kind
    ttl_s: int
    record: Record


class Reply(Struct, frozen=True):
    """What a server says. ``authentic``: that DNSSEC vouches for it. Cut short, nothing else of it is read."""

    rcode: int
    truncated: bool = False
    authentic: bool = False
    answers: tuple[Held, ...] = ()
    authorities: tuple[Held, ...] = ()


def ask_for(name: str, kind: Kind) -> Question:
    """Return the question for a name in small letters, without its last dot. Raises WireError."""
    if PLAIN_NAME.fullmatch(name):
        octets = b"".join([_label(label) for label in name.split(".")]) + b"\0"
        if len(octets) > MAX_NAME_OCTETS:
            raise WireError(f"a name has at most {MAX_NAME_OCTETS} octets")
    else:
        try:
            absolute = dns.name.from_text(name)
            octets = absolute.to_wire() or b""
            name = _in_text(list(absolute.labels[:-1])).lower()
        except (dns.exception.DNSException, UnicodeError) as error:
            raise WireError(str(error)) from None
    return Question(name, kind, octets + _type_and_class(kind))


def _label(text: str) -> bytes:
    return len(text).to_bytes(1, "big") + text.encode("ascii")


@cache
def _type_and_class(kind: Kind) -> bytes:
    return TYPES[kind].to_bytes(2, "big") + _IN.to_bytes(2, "big")


def read_reply(octets: bytes, question: Question) -> Reply:
    """Read what may be the answer to a question. Raises WireError, and nothing else, if it is not."""
    try:
        return _reply(octets, question)
    except (IndexError, struct.error):
        raise WireError("it breaks off") from None


def _reply(octets: bytes, question: Question) -> Reply:
    _, flags, questions, answers, authorities, additional = _HEADER.unpack_from(octets)
    if not flags & _QR or flags & _OPCODE:
        raise WireError("it is no answer")
    rcode = flags & _RCODE
    if questions == 0 and rcode in _MAY_LACK_THE_QUESTION:
        return Reply(rcode)
    end = _HEADER.size + len(question.octets)
    if questions != 1 or not _is_same(octets[_HEADER.size : end], question.octets):
        raise WireError("it answers another question")
    if flags & _TC:
        return Reply(rcode, truncated=True)
    message = _Message(octets, end, question)
    answered = message.section(answers, {TYPES[question.kind], TYPES["CNAME"]})
    said = message.section(authorities, {TYPES["SOA"]})
    rcode |= message.upper_rcode(additional)
    if message.at != len(octets):
        raise WireError("something follows it")
    return Reply(rcode, authentic=bool(flags & _AD), answers=answered, authorities=said)


def _is_same(asked: bytes, question: bytes) -> bool:
    """Whether two questions are one: letters may come back in another case, type and class may not."""
    return asked == question or (asked[-4:] == question[-4:] and asked[:-4].lower() == question[:-4].lower())


class _Message:
    """A message, and how far it has been read."""

    def __init__(self, octets: bytes, at: int, question: Question) -> None:
        self.octets = octets
        self.at = at
        # Most records are of the name that was asked for, by a pointer to it.
        self._known = {_HEADER.size: question.name}

    def section(self, count: int, wanted: set[int]) -> tuple[Held, ...]:
        """Records of these types, of a section; the others are passed over."""
        found = []
        for _ in range(count):
            owner, type_, class_, ttl_s, end = self._head()
            if type_ in wanted and class_ == _IN:
                record = _READ[type_](self, end)
                if self.at != end:
                    raise WireError(f"a record of type {type_} has another length than it says")
                # RFC 2181 §8: of more than 31 bits is none.
                found.append(Held(owner.lower(), _KINDS[type_], ttl_s if ttl_s < 0x80000000 else 0, record))
            self.at = end
        return tuple(found)

    def upper_rcode(self, count: int) -> int:
        """Upper bits of the return code, which EDNS carries: without them BADVERS would be no error."""
        upper = 0
        for _ in range(count):
            _, type_, _, ttl_s, self.at = self._head()
            if type_ == _OPT:
                upper = ttl_s >> 24 << 4
        return upper

    def _head(self) -> tuple[str, int, int, int, int]:
        """Owner, type, class, TTL, and where the record ends."""
        owner = self.name()
        type_, class_, ttl_s, size = _RECORD.unpack_from(self.octets, self.at)
        self.at += _RECORD.size
        end = self.at + size
        if end > len(self.octets):
            raise WireError("it breaks off")
        return owner, type_, class_, ttl_s, end

    def name(self) -> str:
        """Read a name, wherever its parts are, and go behind it."""
        at = self.at
        if self.octets[at] >= 0xC0:
            self.at = at + 2
            place = self._pointer(at)
            known = self._known.get(place)
            if known is None:
                known = self._known[place] = _in_text(self._labels(place)[0])
            return known
        labels, self.at = self._labels(at)
        return _in_text(labels)

    def _pointer(self, at: int) -> int:
        place = (self.octets[at] & 0x3F) << 8 | self.octets[at + 1]
        if place >= at:
            raise WireError("a name leads forward")
        return place

    def _labels(self, at: int) -> tuple[list[bytes], int]:
        """Labels of the name that begins here, and where what follows it begins."""
        octets, left, behind, start = self.octets, MAX_NAME_OCTETS, 0, at
        labels: list[bytes] = []
        for _ in range(MAX_PARTS):
            size = octets[at]
            if size == 0:
                return labels, behind or at + 1
            if size < 0x40:
                label = octets[at + 1 : at + 1 + size]
                left -= size + 1
                if len(label) < size or left < 1:
                    raise WireError("a name is longer than names are")
                labels.append(label)
                at += size + 1
            elif size >= 0xC0:
                behind = behind or at + 2
                at = self._pointer(at)
                if at >= start:  # Always further back: nothing goes in circles.
                    raise WireError("a name leads back to itself")
                start = at
            else:
                raise WireError("a label is of no known form")
        raise WireError("a name has too many parts")


def _in_text(labels: list[bytes]) -> str:
    joined = b".".join(labels)
    if _PLAIN_OCTETS.fullmatch(joined) and joined.count(b".") == max(len(labels) - 1, 0):
        return joined.decode("ascii")
    return dns.name.Name([*labels, b""]).to_text(omit_final_dot=True)


def _address4(message: _Message, end: int) -> Record:
    return Address(inet_ntoa(_octets(message, end, 4)))


def _address6(message: _Message, end: int) -> Record:
    return Address(inet_ntop(AF_INET6, _octets(message, end, 16)))


def _octets(message: _Message, end: int, size: int) -> bytes:
    octets = message.octets[message.at : end]
    if len(octets) != size:
        raise WireError(f"an address has {len(octets)} octets")
    message.at = end
    return octets


def _pointer(message: _Message, _: int) -> Record:
    return Pointer(message.name())


def _mx(message: _Message, _: int) -> Record:
    preference = int.from_bytes(message.octets[message.at : message.at + 2], "big")
    message.at += 2
    return Mx(preference, message.name())


def _txt(message: _Message, end: int) -> Record:
    octets, at = message.octets, message.at
    if at == end:
        raise WireError("a TXT record has no string")
    strings = []
    while at < end:
        size = octets[at]
        strings.append(octets[at + 1 : at + 1 + size])
        at += size + 1
    message.at = at
    return Txt(b"".join(strings))


def _tlsa(message: _Message, end: int) -> Record:
    at, message.at = message.at, end
    if end - at < 3:
        raise WireError("a TLSA record breaks off")
    usage, selector, matching_type = message.octets[at : at + 3]
    return Tlsa(usage, selector, matching_type, message.octets[at + 3 : end])


def _soa(message: _Message, _: int) -> Record:
    message.name()
    message.name()
    times = _SOA_TIMES.unpack_from(message.octets, message.at)
    message.at += _SOA_TIMES.size
    return Soa(times[-1])


_READ: dict[int, Callable[[_Message, int], Record]] = {
    TYPES["A"]: _address4,
    TYPES["NS"]: _pointer,
    TYPES["CNAME"]: _pointer,
    TYPES["SOA"]: _soa,
    TYPES["PTR"]: _pointer,
    TYPES["MX"]: _mx,
    TYPES["TXT"]: _txt,
    TYPES["AAAA"]: _address6,
    TYPES["TLSA"]: _tlsa,
}
