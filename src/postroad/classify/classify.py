"""Classifies what a server says of a message: pure, and the same for SMTP replies and for bounce mails.

Evidence is weighed. The recipient is not there only if unmistakable words say so (or a code whose sense is that alone),
at a phase that can mean the recipient, and no word names the sender, a policy, a quota, a size, a rate, the content or
a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from postroad.classify.cause import HARD_CAUSES, Cause, Confidence
from postroad.classify.evidence import HARD, Evidence, FoundEvidence, find_evidence, find_other_subject
from postroad.classify.known import known_replies
from postroad.classify.relay import as_relay_means, names_account_by_code
from postroad.classify.statement import Speaker, Statement
from postroad.classify.text import clean, names_any
from postroad.errors import Blame
from postroad.smtp.reply import Phase


class Classification(Struct, frozen=True, kw_only=True):
    """What a statement means.

    Attributes:
        cause: Why the message was not taken.
        temporary: Whether the server may take it later.
        suppresses: Whether the address is not to be mailed again.
        confidence: What it rests on.
        rule: The phrases, the code or the documented reply that decided.
        reason: One sentence for a person.
    """

    cause: Cause
    temporary: bool
    suppresses: bool
    confidence: Confidence
    rule: str
    reason: str

    @property
    def fault(self) -> Blame:
        """Whose fault it is."""
        return self.cause.fault

    @property
    def doubtful(self) -> bool:
        """Whether the words do not clearly mean this recipient: the same ones to many are about the sender."""
        if self.cause is Cause.UNKNOWN:
            return True
        if self.fault is not Blame.RECIPIENT:
            return False
        names_mailbox = self.cause in HARD_CAUSES or self.cause is Cause.MAILBOX_FULL
        return self.confidence is Confidence.LOW or (self.confidence is Confidence.MEDIUM and not names_mailbox)


_CAUSES: Final = {
    Evidence.NO_MAILBOX: Cause.NO_MAILBOX,
    Evidence.NO_DOMAIN: Cause.NO_DOMAIN,
    Evidence.NO_MAIL: Cause.NO_MAIL,
    Evidence.MOVED: Cause.MOVED,
    Evidence.MAILBOX_UNAVAILABLE: Cause.UNKNOWN,
    Evidence.OTHER_THING: Cause.UNKNOWN,
    Evidence.MISSING: Cause.UNKNOWN,
    Evidence.MAILBOX_FULL: Cause.MAILBOX_FULL,
    Evidence.INACTIVE: Cause.MAILBOX_DISABLED,
    Evidence.NOT_WANTED: Cause.NOT_WANTED,
    Evidence.SENDER_AUTHENTICATION: Cause.SENDER_AUTHENTICATION,
    Evidence.SENDER_ADDRESS: Cause.SENDER_ADDRESS,
    Evidence.SENDER_NAME: Cause.SENDER_NAME,
    Evidence.REPUTATION: Cause.REPUTATION,
    Evidence.RATE: Cause.RATE,
    Evidence.CONTENT: Cause.CONTENT,
    Evidence.POLICY: Cause.POLICY,
    Evidence.REFUSED: Cause.POLICY,
    Evidence.RELAYING: Cause.RELAYING,
    Evidence.RELAY_ACCOUNT: Cause.RELAY_ACCOUNT,
    Evidence.RELAY_SENDER: Cause.RELAY_ACCOUNT,
    Evidence.TOO_BIG: Cause.TOO_BIG,
    Evidence.MALFORMED: Cause.MALFORMED,
    Evidence.GREYLISTED: Cause.GREYLISTED,
    Evidence.TEMPORARY: Cause.TEMPORARY,
    Evidence.SYSTEM: Cause.SYSTEM,
    Evidence.NETWORK: Cause.NETWORK,
    Evidence.LOOP: Cause.LOOP,
    Evidence.PROTOCOL: Cause.PROTOCOL,
}

_ERRORS: Final = frozenset({Evidence.SYSTEM, Evidence.NETWORK, Evidence.LOOP, Evidence.MALFORMED, Evidence.PROTOCOL})
_AGAINST_CODES: Final = _ERRORS | {Evidence.REFUSED}
"""Evidence that does not speak against words for a missing mailbox, but against a code without such words."""
_NO_VETO: Final = HARD | _AGAINST_CODES | {Evidence.MAILBOX_UNAVAILABLE}
"""Evidence that does not speak against words for a missing mailbox. All other does."""

_HARD_CODES: Final = (
    (re.compile(r"5\.1\.[13]"), Evidence.NO_MAILBOX),  # RFC 3463 §3.2
    (re.compile(r"5\.1\.2"), Evidence.NO_DOMAIN),
    (re.compile(r"5\.1\.6"), Evidence.MOVED),
    (re.compile(r"5\.1\.10"), Evidence.NO_MAIL),  # RFC 7505 §4
)
"""Codes whose sense is that the recipient is not there. No other X.1.N is one."""

_CODES: Final = (
    (re.compile(r"[45]\.1\.[78]"), Cause.SENDER_ADDRESS),
    (re.compile(r"[45]\.2\.1"), Cause.MAILBOX_DISABLED),
    (re.compile(r"[45]\.2\.2"), Cause.MAILBOX_FULL),
    (re.compile(r"[45]\.(?:2\.3|3\.4)"), Cause.TOO_BIG),
    (re.compile(r"[45]\.4\.6"), Cause.LOOP),
    (re.compile(r"[45]\.(?:3\.\d+)"), Cause.SYSTEM),
    (re.compile(r"[45]\.(?:4\.\d+)"), Cause.NETWORK),
    (re.compile(r"[45]\.(?:5\.\d+)"), Cause.PROTOCOL),
    (re.compile(r"[45]\.(?:6\.\d+)"), Cause.MALFORMED),
    # RFC 7372, Google's 25 to 32 and 40, Microsoft's 509 and 515; not 28, which is a flood of mail.
    (re.compile(r"[45]\.7\.(?:2[0-79]|3[0-2]|40|509|515)"), Cause.SENDER_AUTHENTICATION),
    (re.compile(r"[45]\.7\.28"), Cause.RATE),
    # RFC 3463 §3.8 for X.7.2, and Microsoft's own: a list or a person that takes mail from few.
    (re.compile(r"[45]\.7\.(?:2|124|129|13[346]|193)"), Cause.NOT_WANTED),
    (re.compile(r"[45]\.7\.\d+"), Cause.POLICY),
)
_CODE_WEIGHT: Final = 4
"""What a code of the same meaning adds to words, in words. One that names the sender's authentication counts alone."""


def classify(said: Statement) -> Classification:
    """Return what a statement means for the message, its recipient and its sender."""
    known = next((reply for reply in known_replies() if reply.fits(said)), None)
    if known is not None:
        suppresses = known.cause in HARD_CAUSES and not _names_others(said)
        return _made(said, known.cause, known.confidence_in(said), known.name, hard=suppresses)
    found = _find(said)
    hard = [one for one in found if one.evidence in HARD]
    vetoes = [one for one in found if one.evidence not in _NO_VETO]
    hard_code = _hard_code(said)
    if hard and not vetoes and _is_about_recipient(said, hard_code):
        words = max(hard, key=lambda one: one.weight)
        confidence = Confidence.HIGH if hard_code is not None else Confidence.MEDIUM
        return _made(said, _CAUSES[words.evidence], confidence, f"words: {words.phrase}", hard=True)
    if hard_code is not None and not hard and not vetoes and _is_told_by_code(said, found):
        return _made(said, _CAUSES[hard_code], Confidence.LOW, f"code {said.status or said.code}", hard=True)
    return _weighed(said, found)


def _weighed(said: Statement, found: Sequence[FoundEvidence]) -> Classification:
    """Return the cause that most words speak for, or the code where none does."""
    weights: Counter[Cause] = Counter()
    phrases: dict[Cause, str] = {}
    for one in sorted(found, key=lambda one: -one.weight):
        cause = _CAUSES[one.evidence]
        if one.evidence in HARD or cause is Cause.UNKNOWN:
            continue
        weights[cause] += one.weight
        phrases.setdefault(cause, one.phrase)
    by_code = _by_code(said)
    alone = by_code in (Cause.SENDER_AUTHENTICATION, Cause.RELAY_ACCOUNT)
    if by_code is not None and by_code is not Cause.POLICY and (alone or weights[by_code]):
        weights[by_code] += _CODE_WEIGHT
    weights = +weights
    for cause in (Cause.RELAY_ACCOUNT, Cause.RELAYING):
        if said.speaker is Speaker.RELAY and weights[cause]:
            weights[cause] += _CODE_WEIGHT
    if len(weights) > 1:
        del weights[Cause.TEMPORARY]  # A time is no reason; where there is another, it only says that it passes.
    if weights:
        order = list(Cause)
        cause = max(weights, key=lambda one: (weights[one], -order.index(one)))
        confidence = Confidence.HIGH if cause is by_code else Confidence.MEDIUM
        return _made(said, cause, confidence, f"words: {phrases[cause]}" if cause in phrases else f"code {said.status}")
    if by_code is not None:
        return _made(said, by_code, Confidence.LOW, f"code {said.status or said.code}")
    return _made(said, Cause.UNKNOWN, Confidence.LOW, "no known reason")


def _made(said: Statement, cause: Cause, confidence: Confidence, rule: str, *, hard: bool = False) -> Classification:
    if said.phase is Phase.MAIL and (cause.fault is Blame.RECIPIENT or cause is Cause.UNKNOWN):
        # What answers MAIL FROM says nothing of a recipient, whatever its words: none was named.
        cause = Cause.TEMPORARY if said.is_temporary else Cause.SENDER_ADDRESS
    if cause is Cause.CONTENT and said.phase in (Phase.MAIL, Phase.RCPT):
        cause = Cause.REPUTATION  # The content had not been seen.
    temporary = said.is_temporary or (said.status or "5")[0] == "4"
    suppresses = hard and not temporary and said.phase is not Phase.MAIL
    later = "The server may take it later." if said.is_temporary else "The server will not take it."
    reason = f"{cause.value[0].upper()}{cause.value[1:]} ({rule}). {later}"
    return Classification(
        cause=cause,
        temporary=said.is_temporary,
        suppresses=suppresses,
        confidence=confidence,
        rule=rule,
        reason=reason,
    )


def _find(said: Statement) -> tuple[FoundEvidence, ...]:
    """Return the evidence in a statement. That it names an address or a domain of the sender is evidence too."""
    cleaned = clean(said.text, said.recipient)
    found = as_relay_means(said, cleaned, find_evidence(cleaned))
    if names_any(said.text, said.senders, but_not=said.recipient):
        return (*found, FoundEvidence(Evidence.SENDER_ADDRESS, "a domain of the sender", 3))
    return found


def _names_others(said: Statement) -> bool:
    """Whether a documented reply comes with words that name the sender or its standing."""
    others = {Evidence.REPUTATION, Evidence.CONTENT, Evidence.RATE, Evidence.SENDER_AUTHENTICATION}
    return any(one.evidence in others for one in _find(said))


def _is_told_by_code(said: Statement, found: Sequence[FoundEvidence]) -> bool:
    """Whether a code counts alone: it can mean the recipient, and no words mean something else."""
    if said.phase is Phase.MAIL or any(one.evidence in _AGAINST_CODES for one in found):
        return False
    return not find_other_subject(clean(said.text, said.recipient))


def _hard_code(said: Statement) -> Evidence | None:
    if (said.code, said.status) in ((556, None), (556, "5.1.10"), (521, "5.3.2")):  # RFC 7504
        return Evidence.NO_MAIL
    status = said.status or ""
    return next((evidence for pattern, evidence in _HARD_CODES if pattern.fullmatch(status)), None)


def _by_code(said: Statement) -> Cause | None:
    if names_account_by_code(said):
        return Cause.RELAY_ACCOUNT
    status = said.status or ""
    found = next((cause for pattern, cause in _CODES if pattern.fullmatch(status)), None)
    if found is None and not status:
        if said.code == 552:  # RFC 5321 §4.2.3
            return Cause.MAILBOX_FULL
        if said.code in (500, 501, 502, 503, 504):
            return Cause.PROTOCOL
    return found


def _is_about_recipient(said: Statement, hard_code: Evidence | None) -> bool:
    """Whether words at this phase can mean the recipient.

    A server that has seen the message and then says "user unknown" is a filter, unless its code says the same. What
    answers MAIL FROM is about the sender. A sender's address is what X.1.7 and X.1.8 are about (RFC 3463 §3.2).
    """
    if said.phase is Phase.MAIL or re.fullmatch(r"[45]\.1\.[78]", said.status or ""):
        return False
    if said.phase in (Phase.DATA, Phase.DOT):
        return hard_code is not None or (said.status or "").startswith("5.1.")
    return True
