"""The types of DNS records that mail needs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Kind = Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "TLSA", "TXT"]
"""The record types that may be queried."""


class Address(Struct, frozen=True):
    """An A or an AAAA record: the address as text."""

    address: str


class Pointer(Struct, frozen=True):
    """A CNAME, NS or PTR record: the target, without its final dot, in its original case."""

    target: str


class Mx(Struct, frozen=True):
    """An MX record. ``exchange`` has no final dot, and is empty for a null MX (RFC 7505)."""

    preference: int
    exchange: str


class Txt(Struct, frozen=True):
    """A TXT record. ``octets``: its strings, joined, as standards of mail require (RFC 7208 §3.3, RFC 6376 §3.6)."""

    octets: bytes


class Tlsa(Struct, frozen=True):
    """A TLSA record (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching_type: int
    association: bytes


class Soa(Struct, frozen=True):
    """A SOA record. ``minimum_s``: how long a negative response may be cached, in seconds (RFC 2308 §4)."""

    minimum_s: int


Record = Address | Pointer | Mx | Txt | Tlsa | Soa
