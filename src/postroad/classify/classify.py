"""Classifies a server's statement about a message: pure, and the same for SMTP replies and for bounce mails.

The evidence in the text is weighed. The recipient counts as non-existent only under these conditions: unmistakable
words (or a code without another meaning) state it, the SMTP phase can concern the recipient, and no word names the
sender, a policy, a quota, a size, a rate, the content or a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from postroad.classify.cause import HARD_CAUSES, Cause, Confidence
from postroad.classify.evidence import HARD, Evidence, FoundEvidence, find_evidence, find_other_subject, only_refuses
from postroad.classify.known import known_replies
from postroad.classify.relay import names_account_by_code, reinterpret
from postroad.classify.statement import Speaker, Statement
from postroad.classify.text import clean, names_any
from postroad.errors import Blame
from postroad.smtp.reply import Phase


class Classification(Struct, frozen=True, kw_only=True):
    """Meaning of a statement.

    Attributes:
        cause: Why the message was not accepted.
        temporary: Whether the server may accept it later.
        suppresses: Whether the address is to be suppressed.
        confidence: Basis of the classification.
        rule: The phrase, code or documented reply that decided.
        reason: Explanation for the operator.
    """

    cause: Cause
    temporary: bool
    suppresses: bool
    confidence: Confidence
    rule: str
    reason: str

    @property
    def fault(self) -> Blame:
        """Party at fault."""
        return self.cause.fault

    @property
    def doubtful(self) -> bool:
        """Whether the words may be about the sender: they are if many recipients get the same ones."""
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
"""Evidence against a code for a missing mailbox without such words. It does not contradict the words themselves."""
_NO_VETO: Final = HARD | _AGAINST_CODES | {Evidence.MAILBOX_UNAVAILABLE}
"""Evidence that does not contradict words for a missing mailbox. All other evidence does."""

_HARD_CODES: Final = (
    (re.compile(r"5\.1\.[13]"), Evidence.NO_MAILBOX),  # RFC 3463 §3.2
    (re.compile(r"5\.1\.2"), Evidence.NO_DOMAIN),
    (re.compile(r"5\.1\.6"), Evidence.MOVED),
    (re.compile(r"5\.1\.10"), Evidence.NO_MAIL),  # RFC 7505 §4
)
"""Codes that mean that the recipient does not exist. No other X.1.N does."""

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
    # RFC 3463 §3.8 for X.7.2, and Microsoft's own: a list or a recipient with restricted senders.
    (re.compile(r"[45]\.7\.(?:2|124|129|13[346]|193)"), Cause.NOT_WANTED),
    (re.compile(r"[45]\.7\.\d+"), Cause.POLICY),
)
_INNER_CODE: Final = re.compile(r"[:(]\s?55[013][ -]5\.1\.[136]\b(?!\.)")
_CODE_WEIGHT: Final = 4
"""Weight that a code adds to words of the same cause, in words. A code for the sender's authentication counts alone."""


def classify(statement: Statement) -> Classification:
    """Classify a statement: its cause, and its consequence for the recipient."""
    known = next((reply for reply in known_replies() if reply.fits(statement)), None)
    if known is not None:
        suppresses = known.cause in HARD_CAUSES and not _names_others(statement)
        return _result(statement, known.cause, known.confidence_in(statement), known.name, hard=suppresses)
    hits = _find(statement)
    hard = [hit for hit in hits if hit.evidence in HARD]
    vetoes = [hit for hit in hits if hit.evidence not in _NO_VETO]
    hard_code = _hard_code(statement)
    if hard and not vetoes and _is_about_recipient(statement, hard_code):
        strongest = max(hard, key=lambda hit: hit.weight)
        confidence = Confidence.HIGH if hard_code is not None else Confidence.MEDIUM
        return _result(statement, _CAUSES[strongest.evidence], confidence, f"words: {strongest.phrase}", hard=True)
    if hard_code is not None and not hard and not vetoes and _code_counts_alone(statement, hits):
        return _result(
            statement, _CAUSES[hard_code], Confidence.LOW, f"code {statement.status or statement.code}", hard=True
        )
    return _weigh(statement, hits)


def _weigh(statement: Statement, hits: Sequence[FoundEvidence]) -> Classification:
    """Return the cause with the most evidence in words, or the cause of the code if there are no words."""
    weights: Counter[Cause] = Counter()
    phrases: dict[Cause, str] = {}
    for hit in sorted(hits, key=lambda hit: -hit.weight):
        cause = _CAUSES[hit.evidence]
        if hit.evidence in HARD or cause is Cause.UNKNOWN:
            continue
        weights[cause] += hit.weight
        phrases.setdefault(cause, hit.phrase)
    by_code = _by_code(statement)
    alone = by_code in (Cause.SENDER_AUTHENTICATION, Cause.RELAY_ACCOUNT)
    if by_code is not None and by_code is not Cause.POLICY and (alone or weights[by_code]):
        weights[by_code] += _CODE_WEIGHT
    weights = +weights
    for cause in (Cause.RELAY_ACCOUNT, Cause.RELAYING):
        if statement.speaker is Speaker.RELAY and weights[cause]:
            weights[cause] += _CODE_WEIGHT
    if len(weights) > 1:
        del weights[
            Cause.TEMPORARY
        ]  # A time is not a cause. Next to a cause it only means that the failure is temporary.
    if weights:
        order = list(Cause)
        cause = max(weights, key=lambda candidate: (weights[candidate], -order.index(candidate)))
        confidence = Confidence.HIGH if cause is by_code else Confidence.MEDIUM
        return _result(
            statement, cause, confidence, f"words: {phrases[cause]}" if cause in phrases else f"code {statement.status}"
        )
    if by_code is not None:
        return _result(statement, by_code, Confidence.LOW, f"code {statement.status or statement.code}")
    return _result(statement, Cause.UNKNOWN, Confidence.LOW, "no known reason")


def _result(
    statement: Statement, cause: Cause, confidence: Confidence, rule: str, *, hard: bool = False
) -> Classification:
    if statement.phase is Phase.MAIL and (cause.fault is Blame.RECIPIENT or cause is Cause.UNKNOWN):
        # A reply to MAIL FROM cannot be about a recipient, because none was given yet.
        cause = Cause.TEMPORARY if statement.is_temporary else Cause.SENDER_ADDRESS
    if cause is Cause.CONTENT and statement.phase in (Phase.MAIL, Phase.RCPT):
        cause = Cause.REPUTATION  # The server had not received the content.
    temporary = statement.is_temporary or (statement.status or "5")[0] == "4"
    suppresses = hard and not temporary and statement.phase is not Phase.MAIL
    later = "The server may take it later." if statement.is_temporary else "The server will not take it."
    reason = f"{cause.value[0].upper()}{cause.value[1:]} ({rule}). {later}"
    return Classification(
        cause=cause,
        temporary=statement.is_temporary,
        suppresses=suppresses,
        confidence=confidence,
        rule=rule,
        reason=reason,
    )


def _find(statement: Statement) -> tuple[FoundEvidence, ...]:
    """Return the evidence in a statement. An address or a domain of the sender is evidence too."""
    cleaned = clean(statement.text, statement.recipient)
    hits = reinterpret(statement, cleaned, find_evidence(cleaned))
    if names_any(statement.text, statement.senders, but_not=statement.recipient):
        return (*hits, FoundEvidence(Evidence.SENDER_ADDRESS, "a domain of the sender", 3))
    return hits


def _names_others(statement: Statement) -> bool:
    """Return whether a documented reply also has words about the sender or its reputation."""
    others = {Evidence.REPUTATION, Evidence.CONTENT, Evidence.RATE, Evidence.SENDER_AUTHENTICATION}
    return any(hit.evidence in others for hit in _find(statement))


def _code_counts_alone(statement: Statement, hits: Sequence[FoundEvidence]) -> bool:
    """Return whether a code counts without words: it can be about the recipient, and no words contradict it."""
    if statement.phase is Phase.MAIL or any(hit.evidence in _AGAINST_CODES for hit in hits):
        return False
    cleaned = clean(statement.text, statement.recipient)
    return not only_refuses(cleaned) and not find_other_subject(cleaned)


def _hard_code(statement: Statement) -> Evidence | None:
    if (statement.code, statement.status) in ((556, None), (556, "5.1.10"), (521, "5.3.2")):  # RFC 7504
        return Evidence.NO_MAIL
    status = statement.status or ""
    return next((evidence for pattern, evidence in _HARD_CODES if pattern.fullmatch(status)), None)


def _by_code(statement: Statement) -> Cause | None:
    if names_account_by_code(statement):
        return Cause.RELAY_ACCOUNT
    status = statement.status or ""
    by_status = next((cause for pattern, cause in _CODES if pattern.fullmatch(status)), None)
    if by_status is None and not status:
        if statement.code == 552:  # RFC 5321 §4.2.3
            return Cause.MAILBOX_FULL
        if statement.code in (500, 501, 502, 503, 504):
            return Cause.PROTOCOL
    return by_status


def _is_about_recipient(statement: Statement, hard_code: Evidence | None) -> bool:
    """Return whether words in this phase can be about the recipient.

    "User unknown" after the message was received comes from a filter, unless the code has the same meaning. A reply to
    MAIL FROM is about the sender. X.1.7 and X.1.8 are about the sender's address (RFC 3463 §3.2).
    """
    if statement.phase is Phase.MAIL or re.fullmatch(r"[45]\.1\.[78]", statement.status or ""):
        return False
    if statement.phase in (Phase.DATA, Phase.DOT):
        inner = _INNER_CODE.search(statement.text)  # A gateway repeats the reply of the server that it asked.
        return hard_code is not None or inner is not None or (statement.status or "").startswith("5.1.")
    return True
