"""Counts independent receivers that refuse a sender's authentication, which pauses the sender everywhere."""

from __future__ import annotations

from typing import Final

from postroad.delivery.job import SendJob
from postroad.dns.providers import provider_table
from postroad.mail.address import domain_of

INDEPENDENT_RECEIVERS: Final = 3
"""Number of receivers that must refuse a sender's authentication before it is paused everywhere."""
WINDOW_MS: Final = 60 * 60_000
_MAX_RECEIVERS: Final = 100


class AuthenticationRefusals:
    """Receivers that refused the authentication of each sender within the window, as seen by one worker."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, int]] = {}

    def add(self, sender: str, receiver: str, now_ms: int) -> bool:
        """Record a refusal.

        Args:
            sender: The From address.
            receiver: Name of the provider or site. Domains with the same mail hosts are one receiver.
            now_ms: Time of the reply, Unix time in ms.

        Returns:
            Whether enough independent receivers refused the sender.
        """
        seen = self._seen.setdefault(sender, {})
        seen[receiver.casefold()] = now_ms
        for known, at_ms in list(seen.items()):
            if at_ms <= now_ms - WINDOW_MS or len(seen) > _MAX_RECEIVERS:
                del seen[known]
        return len(seen) >= INDEPENDENT_RECEIVERS


def receiver_name(job: SendJob) -> str:
    """Return the name of the receiver of a message: the known mailbox provider, else the site, else the domain."""
    if job.provider in provider_table().names:
        return job.provider
    return job.site or domain_of(job.address)
