"""Whose touch a mail that came back is about. Signed tokens decide; what nobody signed is never guessed.

The return path of each touch is an address of its own (VERP), and its Message-ID bears a token as well. Nobody can make
one without the key. A forged one is worse than none: it rules out the weaker match by address and time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from postroad.bounce.report import MailKind, ParsedMail
from postroad.errors import DataError
from postroad.mail.address import ascii_domain, normalise_address
from postroad.mail.token import Purpose, TokenSigner

TOKEN = r"([0-9a-fA-F]{1,16}-[0-9a-fA-F]{20})"  # noqa: S105  (what one looks like)
SIGNED = re.compile(rf"(?:(bounce|unsubscribe)[+=]|.*[^0-9A-Za-z]){TOKEN}", re.ASCII | re.IGNORECASE)
"""Local part with a token: its purpose (none: a reply) and the token."""
_BOUNCE = re.compile(rf"\bbounce[+=]{TOKEN}@", re.ASCII | re.IGNORECASE)
_UNSUBSCRIBE = re.compile(rf"\bunsubscribe[+=]{TOKEN}@", re.ASCII | re.IGNORECASE)
_REPLY = re.compile(rf"(?:^|[^0-9A-Za-z]){TOKEN}@", re.ASCII)
_MESSAGE_ID = re.compile(rf"<?{TOKEN}@", re.ASCII)


class MatchedBy(StrEnum):
    """How a touch was found."""

    RETURN_PATH = "return-path"
    MESSAGE_ID = "message-id"  # of a message that it returns
    REFERENCE = "reference"  # the Message-ID of one that it answers
    REPLY = "reply-to"
    TAG = "tag"  # that a mail service noted
    UNSUBSCRIBE = "unsubscribe"
    RECIPIENT = "recipient-and-time"

    @property
    def signed(self) -> bool:
        """Whether only we can have said so."""
        return self is not MatchedBy.RECIPIENT


class Match(NamedTuple):
    """A touch, and how it was found."""

    touch_id: int
    by: MatchedBy


class Tokens(NamedTuple):
    """What the tokens of a mail say. ``forged``: there was one that this key did not sign."""

    match: Match | None
    forged: bool


def read_tokens(report: ParsedMail, signer: TokenSigner) -> Tokens:
    """The first token that is ours: of the address it came to, then of the message that it returns or answers."""
    forged = False
    for by, purpose, token in _tokens(report):
        touch_id = signer.read(purpose, token)
        if touch_id is not None:
            return Tokens(Match(touch_id, by), forged)
        # What others write may look like a token by chance; an address of this form was made to.
        forged = forged or purpose in (Purpose.BOUNCE, Purpose.UNSUBSCRIBE)
    return Tokens(None, forged)


def _tokens(report: ParsedMail) -> Iterator[tuple[MatchedBy, Purpose, str]]:
    returned = report.returned
    for address in report.addressed_to:
        if found := _UNSUBSCRIBE.search(address):
            yield MatchedBy.UNSUBSCRIBE, Purpose.UNSUBSCRIBE, found[1]
    mail_from = report.fields.get("original-mail-from", "")
    for text in (*report.addressed_to, returned.return_path, mail_from):
        if found := _BOUNCE.search(text):
            yield MatchedBy.RETURN_PATH, Purpose.BOUNCE, found[1]
    returned_ids = (returned.message_id, report.fields.get("original-message-id", ""))
    of_returned = [
        (MatchedBy.MESSAGE_ID, Purpose.MESSAGE_ID, found[1])
        for text in returned_ids
        if (found := _MESSAGE_ID.search(text))
    ]
    # A report is about the message that it returns, an answer about the one that it answers.
    reports = report.kind in (MailKind.DSN, MailKind.BOUNCE, MailKind.FEEDBACK, MailKind.DISPOSITION)
    if reports:
        yield from of_returned
    for address in report.addressed_to:
        if found := _REPLY.search(address):
            yield MatchedBy.REPLY, Purpose.REPLY, found[1]
    for text in report.references:
        if found := _MESSAGE_ID.search(text):
            yield MatchedBy.REFERENCE, Purpose.MESSAGE_ID, found[1]
    if not reports:
        yield from of_returned
    if returned.tag:
        yield MatchedBy.TAG, Purpose.MESSAGE_ID, returned.tag


def comparable(address: str) -> str:
    """Return the spelling that addresses are compared in; empty if it is no address."""
    local, _, domain = address.strip().rpartition("@")
    try:
        return f"{local}@{ascii_domain(domain)}".lower()
    except (DataError, UnicodeError):  # Octets that are no UTF-8 are surrogates here.
        return ""


def same_mailbox(one: str, other: str) -> bool:
    """Return whether two spellings name one mailbox.

    A server may drop a subaddress (RFC 5233), and leave the domain out or put its own host name in place of it.
    """
    (first_local, first_domain), (second_local, second_domain) = _mailbox(one), _mailbox(other)
    if not first_local or first_local != second_local:
        return False
    if not first_domain or not second_domain:
        return True
    return f".{first_domain}".endswith(f".{second_domain}") or f".{second_domain}".endswith(f".{first_domain}")


def _mailbox(address: str) -> tuple[str, str]:
    """Return local part and domain of an address, without what does not tell mailboxes apart."""
    local, _, domain = comparable(address).rpartition("@") if "@" in address else (address.strip().lower(), "", "")
    local = local.strip("\"'")
    return local.partition("+")[0] or local, "gmail.com" if domain == "googlemail.com" else domain


def recipient_key(recipient: str) -> str:
    """Return what a recipient stands for, however it is spelled: the purpose and the token, else the address."""
    address = comparable(recipient)
    found = SIGNED.fullmatch(address.rpartition("@")[0])
    if found is None:
        return address or recipient.strip().lower()
    return f"{found[1] or Purpose.REPLY}+{found[2]}"


def addresses_of(report: ParsedMail) -> list[str]:
    """Recipients that a report names, as the ledger spells them."""
    normalised: dict[str, None] = {}
    for one in report.recipients:
        for address in one.addresses:
            try:
                normalised[normalise_address(address)] = None
            except DataError:
                continue
    return list(normalised)
