"""Interprets replies of a relay, which may reject our account. Such a reply is not about the recipient.

"Account disabled" from a receiver is about the mailbox. From a relay, in reply to MAIL FROM or to the message, it is
about the account that we log in with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from postroad.classify.evidence import Evidence, FoundEvidence
from postroad.classify.statement import Speaker, Statement
from postroad.smtp.reply import Phase

_REPLY_CODES: Final = frozenset({525, 530, 534, 535, 538})
"""RFC 4954 §6, RFC 3207 §4, RFC 5248: the relay requires a login or TLS, or has disabled the account."""
_STATUS: Final = re.compile(
    r"[45]\.7\.(?:8|13|14)"  # RFC 4954 §6, RFC 5248
    r"|5\.4\.5"  # Google: a daily limit is reached
    r"|5\.1\.90|5\.2\.25[0-9]|[45]\.7\.(?:5[7-9]|6[04]|139|23[23]|50[1-5]|70[58]|750)"  # Exchange Online
)
_CLIENT_AUTHENTICATION: Final = frozenset({"authenticat*", "unauthenticated", "auth required"})
"""Phrases that mean a login, unless a phrase names SPF, DKIM or DMARC."""
_NAMES_RECIPIENT: Final = re.compile(r"\b(?:recipients?|mailbox(?:es)?|inbox|addresse?s?|addressee|users?)\b")
_NAMES_SENDER: Final = re.compile(
    r"\b(?:not (?:been )?(?:verified|validated|confirmed|activated)|unverified|identit(?:y|ies)|send ?as\w*|not owned"
    r"|from (?:address|header|domain)|sender (?!s\b)\w+|not one of your|this address|unregistered domains?"
    r"|(?:allowed|permitted|authori[sz]ed) to send)\b"
)
_TEMPORARY_LIMIT: Final = re.compile(
    r"\b(?:quota|limits?|rate|daily|hourly|monthly|credits?|balance|exceed\w*|threshold)\b"
)


def names_account_by_code(statement: Statement) -> bool:
    """Return whether a relay's codes mean our account, independent of its text."""
    if statement.speaker is not Speaker.RELAY:
        return False
    return statement.code in _REPLY_CODES or _STATUS.fullmatch(statement.status or "") is not None


def reinterpret(statement: Statement, cleaned: str, hits: Sequence[FoundEvidence]) -> tuple[FoundEvidence, ...]:
    """Return the evidence in the sense of its speaker."""
    if statement.speaker is not Speaker.RELAY:
        return _replace(hits, {Evidence.RELAY_SENDER}, Evidence.SENDER_ADDRESS)
    authentication = {hit.phrase for hit in hits if hit.evidence is Evidence.SENDER_AUTHENTICATION}
    about_account = {Evidence.RELAY_SENDER}
    if authentication <= _CLIENT_AUTHENTICATION:
        about_account.add(Evidence.SENDER_AUTHENTICATION)
    if statement.phase is Phase.MAIL:
        about_account |= {Evidence.INACTIVE, Evidence.MAILBOX_FULL}
    elif statement.phase in (Phase.DATA, Phase.DOT) and _NAMES_RECIPIENT.search(cleaned) is None:
        about_account.add(Evidence.INACTIVE)
    return _replace(hits, about_account, Evidence.RELAY_ACCOUNT)


def names_sender(cleaned: str) -> bool:
    """Return whether a relay rejects the sender's address or domain, and not temporarily the account."""
    return _NAMES_SENDER.search(cleaned) is not None and _TEMPORARY_LIMIT.search(cleaned) is None


def _replace(hits: Sequence[FoundEvidence], kinds: Collection[Evidence], new: Evidence) -> tuple[FoundEvidence, ...]:
    return tuple(msgspec.structs.replace(hit, evidence=new) if hit.evidence in kinds else hit for hit in hits)
