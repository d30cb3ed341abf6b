"""Parses SPF records (RFC 7208 §4.6, §5, §6 and §12)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

from postroad.dns.spf_macro import MacroError, MacroString, parse_domain_spec, parse_macros


class Qualifier(StrEnum):
    """The result if a mechanism matches."""

    PASS = "+"  # noqa: S105  (not a secret)
    FAIL = "-"
    SOFTFAIL = "~"
    NEUTRAL = "?"


class MechanismKind(StrEnum):
    """The types of mechanisms (RFC 7208 §5)."""

    ALL = "all"
    INCLUDE = "include"
    A = "a"
    MX = "mx"
    PTR = "ptr"
    IP4 = "ip4"
    IP6 = "ip6"
    EXISTS = "exists"

    @property
    def looks_up(self) -> bool:
        """Whether the mechanism counts as a lookup (§4.6.4)."""
        return self not in (MechanismKind.ALL, MechanismKind.IP4, MechanismKind.IP6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """A mechanism with its qualifier. ``domain``: None means the domain that is checked."""

    text: str
    kind: MechanismKind
    qualifier: Qualifier
    domain: MacroString | None = None
    prefix4: int = 32
    prefix6: int = 128
    network: IPv4Network | IPv6Network | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SpfRecord:
    """A record without syntax errors."""

    mechanisms: tuple[Mechanism, ...]
    redirect: MacroString | None = None
    explanation: MacroString | None = None

    @property
    def all(self) -> Mechanism | None:
        """The mechanism `all`, after which no term is evaluated."""
        return next((mechanism for mechanism in self.mechanisms if mechanism.kind is MechanismKind.ALL), None)


class SpfSyntaxError(Exception):
    """A record has a syntax error. The message names the term."""


_VERSION = "v=spf1"
_MODIFIER = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9._-]*)=(?P<value>.*)")
_DIRECTIVE = re.compile(r"(?P<qualifier>[+?~-]?)(?P<name>[A-Za-z0-9]+)(?P<rest>(?:[:/].*)?)")
_PREFIXES = re.compile(r"(?P<domain>.*?)(?:/(?P<four>0|[1-9]\d?))?(?://(?P<six>0|[1-9]\d{0,2}))?")
_IP4 = re.compile(r"(?P<address>[0-9.]+)(?:/(?P<prefix>0|[1-9]\d?))?")
_IP6 = re.compile(r"(?P<address>[0-9A-Fa-f:.]+)(?:/(?P<prefix>0|[1-9]\d{0,2}))?")
MAX_CACHED = 512
"""Maximum length of a cached record, characters. RFC 7208 §3.4: a record should fit into 512 octets over UDP."""


def is_spf(text: str) -> bool:
    """Return whether a TXT record is an SPF record (§4.5)."""
    return text[:6].lower() == _VERSION and text[6:7] in ("", " ")


def parse_spf(text: str) -> SpfRecord:
    """Parse a record. Raises SpfSyntaxError for an error anywhere in it (§4.6)."""
    # A check evaluates the same record several times, and most domains include those of large providers.
    return _parse_cached(text) if len(text) <= MAX_CACHED else _parse(text)


def _parse(text: str) -> SpfRecord:
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, MacroString] = {}
    for term in text[len(_VERSION) :].split(" "):
        if not term:
            continue
        try:
            modifier = _MODIFIER.fullmatch(term)
            if modifier is None:
                mechanisms.append(_mechanism(term))
                continue
            name = modifier["name"].lower()
            if name not in ("redirect", "exp"):
                parse_macros(modifier["value"])  # An unknown modifier is ignored, but its syntax is checked (§6).
            elif name in modifiers:
                raise SpfSyntaxError(f"{name}= occurs twice")
            else:
                modifiers[name] = parse_domain_spec(modifier["value"])
        except (MacroError, AddressValueError) as error:
            raise SpfSyntaxError(f"{term!r}: {error}") from None
    return SpfRecord(mechanisms=tuple(mechanisms), redirect=modifiers.get("redirect"), explanation=modifiers.get("exp"))


_parse_cached = lru_cache(maxsize=4_096)(_parse)


def _mechanism(term: str) -> Mechanism:
    match = _DIRECTIVE.fullmatch(term)
    try:
        kind = MechanismKind(match["name"].lower() if match else "")
    except ValueError:
        raise SpfSyntaxError(f"{term!r} is not a mechanism") from None
    assert match is not None  # noqa: S101  (no kind has an empty name)
    qualifier, rest = Qualifier(match["qualifier"] or "+"), match["rest"]
    match kind:
        case MechanismKind.ALL:
            if rest:
                raise SpfSyntaxError(f"{term!r}: `all` takes no argument")
            return Mechanism(text=term, kind=kind, qualifier=qualifier)
        case MechanismKind.IP4 | MechanismKind.IP6:
            return Mechanism(text=term, kind=kind, qualifier=qualifier, network=_network(term, kind, rest))
        case MechanismKind.INCLUDE | MechanismKind.EXISTS:
            if not rest.startswith(":"):
                raise SpfSyntaxError(f"{term!r} names no domain")
            return Mechanism(text=term, kind=kind, qualifier=qualifier, domain=parse_domain_spec(rest[1:]))
        case MechanismKind.PTR:
            if rest.startswith("/"):
                raise SpfSyntaxError(f"{term!r}: `ptr` takes no prefix length")
            domain = parse_domain_spec(rest[1:]) if rest else None
            return Mechanism(text=term, kind=kind, qualifier=qualifier, domain=domain)
        case MechanismKind.A | MechanismKind.MX:
            return _with_prefixes(term, kind, qualifier, rest)


def _with_prefixes(term: str, kind: MechanismKind, qualifier: Qualifier, rest: str) -> Mechanism:
    match = _PREFIXES.fullmatch(rest)
    assert match is not None  # noqa: S101  (the pattern matches any text)
    four, six = int(match["four"] or 32), int(match["six"] or 128)
    named = match["domain"]
    if four > 32 or six > 128 or named == ":" or (named and not named.startswith(":")):
        raise SpfSyntaxError(f"{term!r} has an invalid prefix length or domain")
    domain = parse_domain_spec(named[1:]) if named else None
    return Mechanism(text=term, kind=kind, qualifier=qualifier, domain=domain, prefix4=four, prefix6=six)


def _network(term: str, kind: MechanismKind, rest: str) -> IPv4Network | IPv6Network:
    match = (_IP4 if kind is MechanismKind.IP4 else _IP6).fullmatch(rest[1:]) if rest.startswith(":") else None
    if match is None:
        raise SpfSyntaxError(f"{term!r} names no network")
    if kind is MechanismKind.IP4:
        prefix = int(match["prefix"] or 32)
        if prefix <= 32:
            return IPv4Network((IPv4Address(match["address"]), prefix), strict=False)
    else:
        prefix = int(match["prefix"] or 128)
        if prefix <= 128:
            return IPv6Network((IPv6Address(match["address"]), prefix), strict=False)
    raise SpfSyntaxError(f"{term!r}: /{prefix} is longer than an address")
