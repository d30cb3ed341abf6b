"""Whose DNS is checked: a From domain, and what mail from it shows to receivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ADDRESS_BLOCKLISTS = ("zen.spamhaus.org", "bl.spamcop.net")
DOMAIN_BLOCKLISTS = ("dbl.spamhaus.org",)


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
    address_blocklists: tuple[str, ...] = ADDRESS_BLOCKLISTS
    domain_blocklists: tuple[str, ...] = DOMAIN_BLOCKLISTS

    @property
    def return_path(self) -> str:
        """Domain that SPF is asked about."""
        return self.bounce_domain or self.domain
