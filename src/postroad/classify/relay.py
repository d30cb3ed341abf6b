"""Reads replies of a relay: it may refuse our account there, which says nothing of a recipient.

A receiver that says "account disabled" means the mailbox. A relay that says so to MAIL FROM or to the message means
the account that we log in with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from postroad.classify.evidence import Evidence, FoundEvidence
from postroad.classify.statement import Speaker, Statement
from postroad.smtp.reply import Phase

_REPLY_CODES: Final = frozenset({525, 530, 534, 535, 538})
"""RFC 4954 §6, RFC 3207 §4, RFC 5248: the relay wants a login, or TLS, or has disabled the account."""
_STATUS: Final = re.compile(
    r"[45]\.7\.(?:8|13|14)"  # RFC 4954 §6, RFC 5248
    r"|5\.4\.5"  # Google: a daily limit is reached
    r"|5\.1\.90|5\.2\.25[0-9]|[45]\.7\.(?:5[7-9]|6[04]|139|23[23]|50[1-5]|70[58]|750)"  # Exchange Online
)
_CLIENT_AUTHENTICATION: Final = frozenset({"authenticat*", "unauthenticated", "auth required"})
"""Phrases that mean a login, where no phrase names SPF, DKIM or DMARC."""
_NAMES_RECIPIENT: Final = re.compile(r"\b(?:recipients?|mailbox(?:es)?|inbox|addresse?s?|addressee|users?)\b")
_NAMES_SENDER: Final = re.compile(
    r"\b(?:not (?:been )?(?:verified|validated|confirmed|activated)|unverified|identit(?:y|ies)|send ?as\w*|not owned"
    r"|from (?:address|header|domain)|sender (?!s\b)\w+|not one of your|this address|unregistered domains?"
    r"|(?:allowed|permitted|authori[sz]ed) to send)\b"
)
_PASSES: Final = re.compile(r"\b(?:quota|limits?|rate|daily|hourly|monthly|credits?|balance|exceed\w*|threshold)\b")


def names_account_by_code(said: Statement) -> bool:
    """Return whether a relay's codes mean our account there, whatever its words."""
    if said.speaker is not Speaker.RELAY:
        return False
    return said.code in _REPLY_CODES or _STATUS.fullmatch(said.status or "") is not None


def as_relay_means(said: Statement, cleaned: str, found: Sequence[FoundEvidence]) -> tuple[FoundEvidence, ...]:
    """Return evidence as its speaker means it."""
    if said.speaker is not Speaker.RELAY:
        return tuple(_replaced(one, Evidence.SENDER_ADDRESS) if _is_sender(one) else one for one in found)
    authentication = {one.phrase for one in found if one.evidence is Evidence.SENDER_AUTHENTICATION}
    of_account = {Evidence.RELAY_SENDER}
    if authentication <= _CLIENT_AUTHENTICATION:
        of_account.add(Evidence.SENDER_AUTHENTICATION)
    if said.phase is Phase.MAIL:
        of_account |= {Evidence.INACTIVE, Evidence.MAILBOX_FULL}
    elif said.phase in (Phase.DATA, Phase.DOT) and _NAMES_RECIPIENT.search(cleaned) is None:
        of_account.add(Evidence.INACTIVE)
    return tuple(_replaced(one, Evidence.RELAY_ACCOUNT) if one.evidence in of_account else one for one in found)


def names_sender(cleaned: str) -> bool:
    """Return whether a relay refuses the sender's address or domain, and not the account for a time."""
    return _NAMES_SENDER.search(cleaned) is not None and _PASSES.search(cleaned) is None


def _is_sender(one: FoundEvidence) -> bool:
    return one.evidence is Evidence.RELAY_SENDER


def _replaced(one: FoundEvidence, evidence: Evidence) -> FoundEvidence:
    return msgspec.structs.replace(one, evidence=evidence)
