"""Whose DNS is checked: a From domain, and what mail from it shows to receivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from dns.exception import DNSException
from dns.name import IDNA_2008_UTS_46, from_text

from postroad.settings import RouteKind, Settings

_RESERVED = (
    *("test", "example", "invalid", "localhost", "local", "internal", "onion", "alt"),
    *("example.com", "example.net", "example.org"),
)
"""RFC 2606, RFC 6761, RFC 6762, RFC 9476 and ICANN's `internal`: nobody's, and in no public DNS."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """``domain`` and ``bounce_domain`` in ASCII form; without a bounce domain the return path is at the From domain.

    ``keys``: public keys by selector, base64 of what `p` is to hold, where the private ones are at hand.
    """

    domain: str
    bounce_domain: str = ""
    sender_ips: tuple[str, ...] = ()
    selectors: tuple[str, ...] = ()
    helo: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    address_blocklists: tuple[str, ...] = ()
    domain_blocklists: tuple[str, ...] = ()

    @property
    def return_path(self) -> str:
        """Domain that SPF is asked about."""
        return self.bounce_domain or self.domain


def identity_of(settings: Settings, name: str) -> Identity:
    """What receivers see of a sender, as far as the settings tell. Raises ConfigError, ValueError for no domain.

    Behind a relay they see the relay's address and greeting, and not what this machine has.
    """
    sender, health = settings.sender(name), settings.dns_health
    route = settings.routes[sender.route]
    ips, helo = sender.public_addresses, None
    if route.kind is RouteKind.DIRECT:
        helo = sender.helo or route.helo
        if not ips and sender.source_address is not None and ip_address(sender.source_address).is_global:
            ips = (sender.source_address,)
    return Identity(
        domain=ascii_domain(sender.domain),
        bounce_domain=ascii_domain(sender.bounce_domain or ""),
        sender_ips=ips,
        selectors=sender.dkim_selectors,
        helo=helo,
        address_blocklists=health.address_blocklists,
        domain_blocklists=health.domain_blocklists,
    )


def ascii_domain(text: str) -> str:
    """Return a domain in IDNA's ASCII form, in small letters and without its dot. Raises ValueError with the reason."""
    text = text.strip().rstrip(".")
    if not text:
        return ""
    try:
        return from_text(text, idna_codec=IDNA_2008_UTS_46).to_text(omit_final_dot=True).lower()
    except (DNSException, UnicodeError) as error:
        raise ValueError(f"{text!r} is no domain: {error}") from None


def is_reserved(domain: str) -> bool:
    """Whether a domain is one of those for examples and tests, of which no public DNS knows."""
    return any(domain == name or domain.endswith(f".{name}") for name in _RESERVED)
