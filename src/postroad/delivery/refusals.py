"""Tells one receiver's word from that of several: a sender stops everywhere only when independent receivers agree."""

from __future__ import annotations

from typing import Final

from postroad.delivery.job import SendJob
from postroad.dns.providers import provider_table
from postroad.mail.address import domain_of

INDEPENDENT_RECEIVERS: Final = 3
"""So many receivers must refuse a sender's authentication before it stops everywhere."""
WINDOW_MS: Final = 60 * 60_000
_MAX_RECEIVERS: Final = 100


class AuthenticationRefusals:
    """Receivers that lately refused the authentication of each sender, as one worker sees them."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, int]] = {}

    def add(self, sender: str, receiver: str, now_ms: int) -> bool:
        """Record a refusal, and return whether several independent receivers say the same.

        Args:
            sender: The From address.
            receiver: Name of the provider or site. Domains with the same mail hosts are one receiver.
            now_ms: Time of the reply, in milliseconds since 1970.
        """
        seen = self._seen.setdefault(sender, {})
        seen[receiver.casefold()] = now_ms
        for known, at_ms in list(seen.items()):
            if at_ms <= now_ms - WINDOW_MS or len(seen) > _MAX_RECEIVERS:
                del seen[known]
        return len(seen) >= INDEPENDENT_RECEIVERS


def receiver_named(job: SendJob) -> str:
    """Return the name of the receiver of a message: the known mailbox provider, else the site, else the domain."""
    if job.provider in provider_table().names:
        return job.provider
    return job.site or domain_of(job.address)
