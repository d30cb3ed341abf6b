"""Whose DNS is checked: a From domain, and what mail from it shows to receivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


def is_reserved(domain: str) -> bool:
    """Whether a domain is one of those for examples and tests, of which no public DNS knows."""
    return any(domain == name or domain.endswith(f".{name}") for name in _RESERVED)
