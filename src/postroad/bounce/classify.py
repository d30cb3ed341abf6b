"""Classifies each recipient of a parsed mail: a pure function.

Unrelated mail, automatic replies, faults of the sender and failures without a known reason never count against a
recipient. `postroad.classify` classifies the text of a failure, as it does for an SMTP reply.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from msgspec import Struct

from postroad.bounce.report import Action, MailKind, OriginalMessage, ParsedMail, RecipientStatus
from postroad.classify.cause import Cause, Confidence
from postroad.classify.classify import Classification, classify
from postroad.classify.evidence import Evidence, find_evidence
from postroad.classify.statement import Statement
from postroad.classify.text import clean, words_for_all
from postroad.dns.providers import OTHER_PROVIDERS, provider_table
from postroad.errors import Blame
from postroad.mail.address import domain_of


class BounceClass(StrEnum):
    """Verdict of an inbound mail on one recipient."""

    HARD = "hard"  # the mailbox does not exist
    SOFT = "soft"  # the mailbox exists, and did not accept the mail
    BLOCK = "block"  # the sender was rejected, independent of the recipient
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    AUTO_REPLY = "auto-reply"
    CHALLENGE = "challenge"
    UNRELATED = "unrelated"
    UNREADABLE = "unreadable"  # not classified: parsing exceeded a limit


class ClassifiedRecipient(Struct, frozen=True, kw_only=True):
    """The verdict on one recipient, and the rule that gave it.

    Attributes:
        reported: Status of the recipient, as reported.
        verdict: Meaning for the recipient.
        rule: Name of the rule that gave the verdict.
        cause: Cause of a failure, if known.
        final: Whether the server makes no further attempt.
        words: Words of the failure; if many recipients get the same words, the failure is about the sender.
    """

    reported: RecipientStatus
    verdict: BounceClass
    rule: str
    cause: Cause | None = None
    final: bool = True
    words: str = ""


def classify_recipients(report: ParsedMail) -> tuple[ClassifiedRecipient, ...]:
    """Classify every recipient of a report. The result has at least one entry, if need be without an address."""
    recipients = report.recipients or (RecipientStatus(address=None),)
    return tuple(_classify_recipient(report, recipient) for recipient in recipients)


def _classify_recipient(report: ParsedMail, recipient: RecipientStatus) -> ClassifiedRecipient:
    match report.kind:
        case MailKind.DSN | MailKind.BOUNCE:
            return _classify_status(recipient, report.returned)
        case MailKind.FEEDBACK:
            verdict, rule = _FEEDBACK.get(report.feedback_type, (BounceClass.COMPLAINT, "feedback report"))
        case MailKind.AUTO_REPLY:
            verdict, rule = BounceClass.AUTO_REPLY, report.format
        case MailKind.CHALLENGE:
            verdict, rule = BounceClass.CHALLENGE, report.format
        case MailKind.DISPOSITION:
            verdict, rule = BounceClass.UNRELATED, "receipt"
        case MailKind.OTHER | MailKind.REPLY:
            verdict, rule = BounceClass.UNRELATED, report.format
        case MailKind.UNREADABLE:
            verdict, rule = BounceClass.UNREADABLE, report.format
        case other:
            assert_never(other)
    return ClassifiedRecipient(reported=recipient, verdict=verdict, rule=rule)


_FEEDBACK = {
    # RFC 5965 §7.3, RFC 6430, RFC 6591. A failed authentication is about us, or about another user of our name.
    "not-spam": (BounceClass.UNRELATED, "feedback report: not spam"),
    "auth-failure": (BounceClass.BLOCK, "feedback report: authentication failed"),
    # Older types that auth-failure replaced. Some providers still send them.
    **dict.fromkeys(("dkim", "dmarc", "spf"), (BounceClass.BLOCK, "feedback report: authentication failed")),
    "opt-out": (BounceClass.UNSUBSCRIBE, "feedback report: opt-out"),
    "opt-out-list": (BounceClass.UNSUBSCRIBE, "feedback report: opt-out"),
}


def _classify_status(recipient: RecipientStatus, returned: OriginalMessage) -> ClassifiedRecipient:
    match recipient.action:
        case Action.DELIVERED | Action.RELAYED | Action.EXPANDED:
            rule = f"{recipient.action}, not failed"
            return ClassifiedRecipient(reported=recipient, verdict=BounceClass.UNRELATED, rule=rule)
        case Action.DELAYED:
            # RFC 3464 §2.3.3: the server tries again. Another mail may report the final result.
            return ClassifiedRecipient(reported=recipient, verdict=BounceClass.SOFT, rule="delayed", final=False)
        case Action.FAILED | None:
            return _classify_failure(recipient, returned)
        case other:
            assert_never(other)


def _classify_failure(recipient: RecipientStatus, returned: OriginalMessage) -> ClassifiedRecipient:
    """Classify a failure. ``returned``: header of the returned message, which names its senders."""
    senders = tuple(filter(None, (returned.sender, returned.return_path)))
    has_success_status = recipient.status is not None and recipient.status[0] == "2"
    text = recipient.quoted or recipient.diagnostic
    result = _classify_text(recipient, text, senders)
    if has_success_status and not result.suppresses:
        return ClassifiedRecipient(reported=recipient, verdict=BounceClass.UNRELATED, rule="a status of success")
    if recipient.quoted and (
        result.confidence is Confidence.LOW or (result.suppresses and _mailbox_exists(recipient.diagnostic))
    ):
        # The reply of the remote host has priority. If it has no reason, or if the local server reports that the
        # mailbox exists, the text of the local server counts.
        text = recipient.diagnostic
        result = _classify_text(recipient, text, senders)
    address = recipient.original or recipient.address or ""
    return ClassifiedRecipient(
        reported=recipient,
        verdict=BounceClass.HARD if result.suppresses else _verdict_of(result),
        rule=f"{result.cause}: {result.rule}",
        cause=result.cause,
        words=words_for_all(text, address, recipient.status) if result.doubtful else "",
    )


def _mailbox_exists(text: str) -> bool:
    """Return whether a text states that the mailbox exists: it is full, or inactive."""
    existing = (Evidence.MAILBOX_FULL, Evidence.INACTIVE)
    return any(hit.evidence in existing for hit in find_evidence(clean(text)))


def _classify_text(recipient: RecipientStatus, text: str, senders: tuple[str, ...]) -> Classification:
    return classify(
        Statement(
            text=text,
            code=recipient.reply_code,
            status=recipient.status if recipient.status is None or recipient.status[0] != "2" else None,
            phase=recipient.phase,
            provider=_provider_of(recipient),
            recipient=recipient.original or recipient.address or "",
            senders=senders,
        )
    )


def _provider_of(recipient: RecipientStatus) -> str:
    """Return the mailbox provider that rejected the message, by the recipient's domain or the remote host.

    Returns:
        Name of the provider, or an empty string if it is not in the table.
    """
    table = provider_table()
    by_domain = table.of_domain(domain_of((recipient.original or recipient.address or "").lower()))
    if by_domain is not None:
        return by_domain
    host = (recipient.remote_mta or "").partition(" ")[0].strip("[]()").lower().rstrip(".")
    by_host = table.of_hosts([host]) if host else OTHER_PROVIDERS
    return "" if by_host == OTHER_PROVIDERS else by_host


def _verdict_of(result: Classification) -> BounceClass:
    match result.fault:
        case Blame.SENDER | Blame.US:
            return BounceClass.BLOCK
        case Blame.MESSAGE:
            return BounceClass.BLOCK if result.cause is Cause.CONTENT else BounceClass.SOFT
        case Blame.RECIPIENT | Blame.HOST:
            return BounceClass.SOFT
        case other:
            assert_never(other)
