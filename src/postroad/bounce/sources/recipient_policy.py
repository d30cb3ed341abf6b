"""Decides which recipients the inbound server accepts. Pure: no I/O.

Every accepted recipient is either an address with a token that we signed, or an address that the settings list. So the
server never relays mail, and never accepts mail that it would have to return later (RFC 5321 §6.1): the client gets the
rejection and reports it to the sender.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from postroad.bounce.match import SIGNED, comparable
from postroad.mail.address import ascii_domain
from postroad.mail.token import Purpose, TokenSigner

RELAYING = "550 5.7.1 Mail for that domain is not taken here"
NO_SUCH_ADDRESS = "550 5.1.1 There is no such address here"
NOT_A_BOUNCE = "550 5.7.1 Only bounces are taken here: their return path is null"


class RecipientPolicy:
    """Decides on recipients by the signing key and the settings."""

    def __init__(
        self,
        signer: TokenSigner,
        *,
        domains: Iterable[str],
        addresses: Iterable[str] = (),
        senders: Iterable[str] = (),
    ) -> None:
        """Prepare the sets of addresses.

        Args:
            signer: Verifies the token of a recipient.
            domains: Domains of recipients with a token.
            addresses: Recipients without a token.
            senders: Patterns of return paths that may write to bounce addresses, in addition to the null path.
        """
        self._signer = signer
        self._addresses = frozenset(comparable(address) for address in addresses)
        self._domains = frozenset(ascii_domain(domain).lower() for domain in domains)
        self._senders = tuple(sender.lower() for sender in senders)

    @property
    def domains(self) -> frozenset[str]:
        """Domains of recipients with a token, as A-labels."""
        return self._domains

    def refusal(self, recipient: str, mail_from: str) -> str | None:
        """Return the reply that rejects a recipient, or None to accept it. An empty ``mail_from`` is the null path."""
        address = comparable(recipient)
        # RFC 5321 §4.5.1: `RCPT TO:<postmaster>` without a domain must be accepted.
        if address in self._addresses or recipient.strip().lower() == "postmaster":
            return None
        local, _, domain = address.rpartition("@")
        if domain not in self._domains:
            return RELAYING
        signed = SIGNED.fullmatch(local)
        if signed is None:
            return NO_SUCH_ADDRESS
        purpose = Purpose(signed[1].lower()) if signed[1] else Purpose.REPLY
        if self._signer.read(purpose, signed[2]) is None:
            return NO_SUCH_ADDRESS
        # People unsubscribe and reply from their own address. Only servers return mail.
        if purpose is Purpose.BOUNCE and not self._may_return(mail_from):
            return NOT_A_BOUNCE
        return None

    def _may_return(self, mail_from: str) -> bool:
        return not mail_from or any(fnmatchcase(mail_from.lower(), pattern) for pattern in self._senders)
