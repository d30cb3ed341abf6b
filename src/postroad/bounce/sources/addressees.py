"""Who mail is taken for. Pure: an envelope in, a refusal or none out.

Everything that is taken has an owner: a touch of ours that signed its address, or an address that the settings name.
So nothing is ever passed on for others, and nothing is taken that would have to be returned later (RFC 5321 §6.1): a
server that is refused here tells its own sender.
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


class Addressees:
    """Knows every address that mail is taken for."""

    def __init__(
        self,
        signer: TokenSigner,
        *,
        domains: Iterable[str],
        addresses: Iterable[str] = (),
        senders: Iterable[str] = (),
    ) -> None:
        self._signer = signer
        self._addresses = frozenset(comparable(address) for address in addresses)
        self._domains = frozenset(ascii_domain(domain).lower() for domain in domains)
        self._senders = tuple(sender.lower() for sender in senders)

    @property
    def domains(self) -> frozenset[str]:
        """Domains that mail with a token is taken for, in A-labels."""
        return self._domains

    def refusal(self, recipient: str, mail_from: str) -> str | None:
        """Reply that refuses a recipient, or None: it is taken. ``mail_from`` empty: the null return path."""
        address = comparable(recipient)
        # RFC 5321 §4.5.1: `RCPT TO:<postmaster>`, without a domain, is taken everywhere.
        if address in self._addresses or recipient.strip().lower() == "postmaster":
            return None
        local, _, domain = address.rpartition("@")
        if domain not in self._domains:
            return RELAYING
        found = SIGNED.fullmatch(local)
        if found is None:
            return NO_SUCH_ADDRESS
        purpose = Purpose(found[1].lower()) if found[1] else Purpose.REPLY
        if self._signer.read(purpose, found[2]) is None:
            return NO_SUCH_ADDRESS
        # People unsubscribe from addresses of their own; only servers return mail.
        if purpose is Purpose.BOUNCE and not self._may_return(mail_from):
            return NOT_A_BOUNCE
        return None

    def _may_return(self, mail_from: str) -> bool:
        return not mail_from or any(fnmatchcase(mail_from.lower(), pattern) for pattern in self._senders)
