"""Recognizes replies: mail of a person, neither of a program nor of our own senders, that refers to a message."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import msgspec

from postroad.bounce.match import TOKEN, Match, MatchedBy
from postroad.bounce.report import MailKind, ParsedMail
from postroad.mail.token import Purpose, TokenSigner
from postroad.settings import REPLY_TOKEN

_OWN_MESSAGE_ID = re.compile(rf"<{TOKEN}@", re.ASCII)
RULE = "a person's reply"
OURS = "a copy of our own"


def own_addresses(senders: Iterable[tuple[str, str | None]]) -> frozenset[str]:
    """Return the addresses of our own senders, in lower case.

    Args:
        senders: For each sender, its From and its Reply-To address.
    """
    named = [address for pair in senders for address in pair if address]
    # The mailbox of hello+{token}@example.com is hello@example.com, and its owner replies from that address.
    return frozenset(re.sub(rf"[+=-]?{re.escape(REPLY_TOKEN)}", "", address).lower() for address in named)


def mark_reply(report: ParsedMail, match: Match | None, signer: TokenSigner, own: Collection[str]) -> ParsedMail:
    """Return the mail, with the kind `REPLY` if a person replied to a message of ours.

    A reply references the message, or was sent to its Reply-To address. Copies of our own messages in a mailbox, and
    replies that we sent ourselves, do not count.

    Args:
        report: The parsed mail.
        match: Touch that the mail was matched to.
        signer: Verifies the token in the mail's own Message-ID.
        own: Addresses of our own senders, in lower case.

    Returns:
        The mail itself if it is not a reply.
    """
    if report.kind is not MailKind.OTHER or match is None or match.by not in (MatchedBy.REFERENCE, MatchedBy.REPLY):
        return report
    own_id = _OWN_MESSAGE_ID.match(report.message_id)
    if (own_id and signer.read(Purpose.MESSAGE_ID, own_id[1]) is not None) or report.sender.lower() in own:
        return msgspec.structs.replace(report, format=OURS)
    return msgspec.structs.replace(report, kind=MailKind.REPLY, format=RULE) if report.personal else report
