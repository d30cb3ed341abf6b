"""The identity whose DNS is checked: a From domain, and what receivers see of mail from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_RESERVED = (
    *("test", "example", "invalid", "localhost", "local", "internal", "onion", "alt"),
    *("example.com", "example.net", "example.org"),
)
"""Reserved by RFC 2606, RFC 6761, RFC 6762, RFC 9476, and `internal` by ICANN. Not in the public DNS."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The domain of a sender, and what mail from it uses.

    Attributes:
        domain: The From domain, in ASCII.
        bounce_domain: The domain of the return path, in ASCII. Empty: the From domain.
        sender_ips: Addresses from which mail is sent.
        selectors: DKIM selectors.
        helo: The name in EHLO.
        keys: Public keys by selector, as base64 for `p`, if the private keys are available.
        address_blocklists: Blocklists to query for the addresses.
        domain_blocklists: Blocklists to query for the domains.
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
        """The domain that SPF checks."""
        return self.bounce_domain or self.domain


def is_reserved(domain: str) -> bool:
    """Return whether a domain is reserved for examples and tests, and so not in the public DNS."""
    return any(domain == name or domain.endswith(f".{name}") for name in _RESERVED)
