"""Decides whether an address from untrusted DNS may be connected to: if it is public, or in an allowed network."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

EVERYWHERE: Final[tuple[Network, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""Allows all addresses, for names that the operator configured."""
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052 §2.1, RFC 8215
_IPV4_COMPATIBLE: Final = IPv6Network("::/96")  # RFC 4291 §2.5.5.1, deprecated
_NEVER_PUBLIC: Final[tuple[Network, ...]] = (
    IPv4Network("192.88.99.0/24"),  # RFC 7526 §4: the anycast of 6to4
    IPv6Network("fec0::/10"),  # RFC 3879: site-local
    IPv4Network("192.0.0.0/24"),  # RFC 6890 §2.1: for protocols, such as DS-Lite
    IPv6Network("100::/64"),  # RFC 6666: discarded
    IPv6Network("3fff::/20"),  # RFC 9637: documentation
)


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parse networks such as ``10.0.0.0/8``. Raises ValueError for an invalid one."""
    return tuple(ip_network(text) for text in texts)


def may_connect(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Return whether an address is public, or in one of the allowed networks.

    Loopback, private, link-local, shared (RFC 6598), multicast, unspecified and reserved addresses (RFC 6890) are not
    public. If an IPv6 address embeds an IPv4 address (mapped, compatible, 6to4, Teredo, NAT64), that one must be public
    too.

    Args:
        address: An IPv4 or IPv6 address, with or without a zone.
        allowed: Networks that are allowed although they are not public.

    Returns:
        Whether a connection is permitted.
    """
    ip = ip_address(address.partition("%")[0])
    embedded = _embedded(ip)
    if any(candidate in network for network in allowed for candidate in (ip, *embedded)):
        return True
    return _is_public(ip) and all(map(_is_public, embedded))


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return True  # The embedded address is checked instead.
    reserved = address.is_multicast or address.is_reserved or address.is_unspecified or not address.is_global
    # The standard library classifies NAT64 as reserved, but it leads to public addresses.
    if isinstance(address, IPv6Address) and address in _NAT64[0]:
        return True
    return not reserved and not any(address in network for network in _NEVER_PUBLIC)


def _embedded(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address embeds."""
    if isinstance(address, IPv4Address):
        return []
    teredo = address.teredo or ()
    embedded = [ipv4 for ipv4 in (address.ipv4_mapped, address.sixtofour, *teredo) if ipv4 is not None]
    if any(address in network for network in (*_NAT64, _IPV4_COMPATIBLE)):
        embedded.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return embedded
