"""Matches an inbound mail to a touch, by signed tokens.

The return path of each touch is unique (VERP), and its Message-ID contains a token too. A token cannot be made without
the key. A forged token excludes the weaker match by recipient and time.
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

TOKEN = r"([0-9a-fA-F]{1,16}-[0-9a-fA-F]{20})"  # noqa: S105 - a pattern
SIGNED = re.compile(rf"(?:(bounce|unsubscribe)[+=]|.*[^0-9A-Za-z]){TOKEN}", re.ASCII | re.IGNORECASE)
"""Local part with a token. Groups: the purpose (missing for a reply), and the token."""
_BOUNCE = re.compile(rf"\bbounce[+=]{TOKEN}@", re.ASCII | re.IGNORECASE)
_UNSUBSCRIBE = re.compile(rf"\bunsubscribe[+=]{TOKEN}@", re.ASCII | re.IGNORECASE)
_REPLY = re.compile(rf"(?:^|[^0-9A-Za-z]){TOKEN}@", re.ASCII)
_MESSAGE_ID = re.compile(rf"<?{TOKEN}@", re.ASCII)


class MatchedBy(StrEnum):
    """How a mail was matched to a touch."""

    RETURN_PATH = "return-path"
    MESSAGE_ID = "message-id"  # of the returned message
    REFERENCE = "reference"  # the Message-ID of the message that it replies to
    REPLY = "reply-to"
    TAG = "tag"  # that an ESP stored
    UNSUBSCRIBE = "unsubscribe"
    RECIPIENT = "recipient-and-time"

    @property
    def signed(self) -> bool:
        """Whether a signed token gave the match."""
        return self is not MatchedBy.RECIPIENT


class Match(NamedTuple):
    """A touch, and how the mail was matched to it."""

    touch_id: int
    by: MatchedBy


class Tokens(NamedTuple):
    """Result of the verification of a mail's tokens. ``forged``: the mail has a token with an invalid signature."""

    match: Match | None
    forged: bool


def verify_tokens(report: ParsedMail, signer: TokenSigner) -> Tokens:
    """Verify the tokens of a mail, and match by the first valid one: of its recipient, then of the related message."""
    forged = False
    for by, purpose, token in _tokens(report):
        touch_id = signer.read(purpose, token)
        if touch_id is not None:
            return Tokens(Match(touch_id, by), forged)
        # Other text may look like a token by chance. An address of this form does not.
        forged = forged or purpose in (Purpose.BOUNCE, Purpose.UNSUBSCRIBE)
    return Tokens(None, forged)


def _tokens(report: ParsedMail) -> Iterator[tuple[MatchedBy, Purpose, str]]:
    returned = report.returned
    for address in report.addressed_to:
        if token_match := _UNSUBSCRIBE.search(address):
            yield MatchedBy.UNSUBSCRIBE, Purpose.UNSUBSCRIBE, token_match[1]
    mail_from = report.fields.get("original-mail-from", "")
    for text in (*report.addressed_to, returned.return_path, mail_from):
        if token_match := _BOUNCE.search(text):
            yield MatchedBy.RETURN_PATH, Purpose.BOUNCE, token_match[1]
    returned_ids = (returned.message_id, report.fields.get("original-message-id", ""))
    of_returned = [
        (MatchedBy.MESSAGE_ID, Purpose.MESSAGE_ID, token_match[1])
        for text in returned_ids
        if (token_match := _MESSAGE_ID.search(text))
    ]
    # A report is about the message that it returns, a reply about the one that it references.
    reports = report.kind in (MailKind.DSN, MailKind.BOUNCE, MailKind.FEEDBACK, MailKind.DISPOSITION)
    if reports:
        yield from of_returned
    for address in report.addressed_to:
        if token_match := _REPLY.search(address):
            yield MatchedBy.REPLY, Purpose.REPLY, token_match[1]
    for text in report.references:
        if token_match := _MESSAGE_ID.search(text):
            yield MatchedBy.REFERENCE, Purpose.MESSAGE_ID, token_match[1]
    if not reports:
        yield from of_returned
    if returned.tag:
        yield MatchedBy.TAG, Purpose.MESSAGE_ID, returned.tag


def comparable(address: str) -> str:
    """Return the form of an address that is compared. Empty if the text is not an address."""
    local, _, domain = address.strip().rpartition("@")
    try:
        return f"{local}@{ascii_domain(domain)}".lower()
    except (DataError, UnicodeError):  # Octets that are not valid UTF-8 are surrogates here.
        return ""


def same_mailbox(one: str, other: str) -> bool:
    """Return whether two addresses name the same mailbox.

    A server may omit a subaddress (RFC 5233) or the domain, or replace the domain by its own host name.
    """
    (first_local, first_domain), (second_local, second_domain) = _mailbox(one), _mailbox(other)
    if not first_local or first_local != second_local:
        return False
    if not first_domain or not second_domain:
        return True
    return f".{first_domain}".endswith(f".{second_domain}") or f".{second_domain}".endswith(f".{first_domain}")


def _mailbox(address: str) -> tuple[str, str]:
    """Return local part and domain of an address, without subaddress, quotes and case."""
    local, _, domain = comparable(address).rpartition("@") if "@" in address else (address.strip().lower(), "", "")
    local = local.strip("\"'")
    return local.partition("+")[0] or local, "gmail.com" if domain == "googlemail.com" else domain


def recipient_key(recipient: str) -> str:
    """Return a key that is equal for all spellings of a recipient: purpose and token, else the address."""
    address = comparable(recipient)
    token_match = SIGNED.fullmatch(address.rpartition("@")[0])
    if token_match is None:
        return address or recipient.strip().lower()
    return f"{token_match[1] or Purpose.REPLY}+{token_match[2]}"


def addresses_of(report: ParsedMail) -> list[str]:
    """Return the recipients of a report, normalised as in the ledger."""
    normalised: dict[str, None] = {}
    for recipient in report.recipients:
        for address in recipient.addresses:
            try:
                normalised[normalise_address(address)] = None
            except DataError:
                continue
    return list(normalised)
