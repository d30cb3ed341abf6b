"""Whether somebody answered: a person, and not a program, a stranger, or we ourselves."""

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
    """Addresses that we write from, by each sender's address and its address for replies, in lower case."""
    named = [address for pair in senders for address in pair if address]
    # hello+{token}@example.com is read, and answered from, as hello@example.com.
    return frozenset(re.sub(rf"[+=-]?{re.escape(REPLY_TOKEN)}", "", address).lower() for address in named)


def answered(report: ParsedMail, match: Match | None, signer: TokenSigner, own: Collection[str]) -> ParsedMail:
    """The report as a person's reply, if it is one: it names a message of ours, or came to the address that it gave.

    Copies of what we sent, in a mailbox that keeps them, and answers that we gave ourselves are none.
    """
    if report.kind is not MailKind.OTHER or match is None or match.by not in (MatchedBy.REFERENCE, MatchedBy.REPLY):
        return report
    found = _OWN_MESSAGE_ID.match(report.message_id)
    if (found and signer.read(Purpose.MESSAGE_ID, found[1]) is not None) or report.sender.lower() in own:
        return msgspec.structs.replace(report, format=OURS)
    return msgspec.structs.replace(report, kind=MailKind.REPLY, format=RULE) if report.personal else report
