"""Causes of a rejected message, and the party at fault for each."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from postroad.errors import Blame


class Cause(StrEnum):
    """Why a message was not accepted."""

    NO_MAILBOX = "no such mailbox"
    NO_DOMAIN = "no such domain"
    NO_MAIL = "domain takes no mail"
    MOVED = "moved away"
    MAILBOX_FULL = "mailbox full"
    MAILBOX_DISABLED = "mailbox disabled"
    NOT_WANTED = "not wanted by the recipient"
    RECIPIENT_BUSY = "recipient gets too much mail"
    BOUNCED_BEFORE = "on the mail service's list of bounces"
    SENDER_AUTHENTICATION = "sender authentication"
    SENDER_ADDRESS = "sender address refused"
    SENDER_NAME = "sender's host name"
    REPUTATION = "reputation"
    RATE = "too fast"
    RELAYING = "relaying denied"
    POLICY = "policy"
    RELAY_ACCOUNT = "account at the relay"
    CONTENT = "content"
    TOO_BIG = "message too big"
    MALFORMED = "message refused"
    GREYLISTED = "greylisted"
    TEMPORARY = "not now"
    SYSTEM = "error of the server"
    NETWORK = "did not get through"
    LOOP = "mail loop"
    PROTOCOL = "protocol error"
    UNKNOWN = "refused without a reason"

    @property
    def fault(self) -> Blame:
        """Party at fault."""
        return _FAULTS[self]


class Confidence(StrEnum):
    """Basis of a classification."""

    HIGH = "high"  # a documented reply, or words and a code with the same meaning
    MEDIUM = "medium"  # words alone
    LOW = "low"  # a code alone, or nothing


HARD_CAUSES: Final = frozenset({Cause.NO_MAILBOX, Cause.NO_DOMAIN, Cause.NO_MAIL, Cause.MOVED})
"""Causes that mean that the recipient does not exist."""

_FAULTS: Final = {
    **dict.fromkeys((Cause.NO_MAILBOX, Cause.NO_DOMAIN, Cause.NO_MAIL, Cause.MOVED), Blame.RECIPIENT),
    **dict.fromkeys((Cause.MAILBOX_FULL, Cause.MAILBOX_DISABLED), Blame.RECIPIENT),
    **dict.fromkeys((Cause.NOT_WANTED, Cause.RECIPIENT_BUSY, Cause.BOUNCED_BEFORE), Blame.RECIPIENT),
    **dict.fromkeys((Cause.SENDER_AUTHENTICATION, Cause.SENDER_ADDRESS, Cause.SENDER_NAME), Blame.SENDER),
    **dict.fromkeys((Cause.REPUTATION, Cause.RATE, Cause.POLICY, Cause.RELAYING), Blame.SENDER),
    **dict.fromkeys((Cause.CONTENT, Cause.TOO_BIG, Cause.MALFORMED), Blame.MESSAGE),
    **dict.fromkeys((Cause.GREYLISTED, Cause.TEMPORARY, Cause.SYSTEM), Blame.HOST),
    **dict.fromkeys((Cause.NETWORK, Cause.LOOP, Cause.UNKNOWN), Blame.HOST),
    **dict.fromkeys((Cause.RELAY_ACCOUNT, Cause.PROTOCOL), Blame.US),
}
