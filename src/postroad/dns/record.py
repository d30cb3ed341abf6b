"""What an answer consists of: the records that mail needs, each kind in a form of its own."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Kind = Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "TLSA", "TXT"]
"""What may be asked for."""


class Address(Struct, frozen=True):
    """An A or an AAAA record: the address as text."""

    address: str


class Pointer(Struct, frozen=True):
    """A CNAME, NS or PTR record: the name that it leads to, without its last dot, in the case that it has there."""

    target: str


class Mx(Struct, frozen=True):
    """A mail host of a domain. ``exchange`` without its last dot; empty: a null MX (RFC 7505)."""

    preference: int
    exchange: str


class Txt(Struct, frozen=True):
    """A TXT record. Whoever writes one for mail means its strings as one: ``octets`` (RFC 7208 §3.3, RFC 6376 §3.6)."""

    octets: bytes


class Tlsa(Struct, frozen=True):
    """RFC 6698 §2.1."""

    usage: int
    selector: int
    matching_type: int
    association: bytes


class Soa(Struct, frozen=True):
    """Of a SOA record, for how long it may be remembered that something is not there (RFC 2308 §4)."""

    minimum_s: int


Record = Address | Pointer | Mx | Txt | Tlsa | Soa
