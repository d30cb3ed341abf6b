"""Decides what a report means for each recipient that it names: a pure function.

An unrelated mail, an automatic reply, the sender's own fault and a failure without a known reason never count against
a recipient. What a server says of a failure is classified by `postroad.classify`, as a reply on the way out is.
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
    """What a mail that came back means for one recipient."""

    HARD = "hard"  # the mailbox is not there
    SOFT = "soft"  # it is, and did not take the mail
    BLOCK = "block"  # the sender was refused, whoever the recipient
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    AUTO_REPLY = "auto-reply"
    CHALLENGE = "challenge"
    UNRELATED = "unrelated"
    UNREADABLE = "unreadable"  # not judged: reading it passed a limit


class Classified(Struct, frozen=True, kw_only=True):
    """The verdict on one recipient, and the rule that gave it.

    ``cause``: why it failed, where it did and that is known. ``final``: nothing more is tried for this mail.
    ``words``: those of a failure that is about the sender if many recipients get it.
    """

    reported: RecipientStatus
    verdict: BounceClass
    rule: str
    cause: Cause | None = None
    final: bool = True
    words: str = ""


def judge(report: ParsedMail) -> tuple[Classified, ...]:
    """Judge every recipient of a report. There is at least one, be it without an address."""
    recipients = report.recipients or (RecipientStatus(address=None),)
    return tuple(_judge_one(report, one) for one in recipients)


def _judge_one(report: ParsedMail, one: RecipientStatus) -> Classified:
    match report.kind:
        case MailKind.DSN | MailKind.BOUNCE:
            return _judge_failure(one, report.returned)
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
    return Classified(reported=one, verdict=verdict, rule=rule)


_FEEDBACK = {
    # RFC 5965 §7.3, RFC 6430, RFC 6591. A failed authentication tells of us, or of somebody who uses our name.
    "not-spam": (BounceClass.UNRELATED, "feedback report: not spam"),
    "auth-failure": (BounceClass.BLOCK, "feedback report: authentication failed"),
    # The types that auth-failure replaced, still sent by some.
    **dict.fromkeys(("dkim", "dmarc", "spf"), (BounceClass.BLOCK, "feedback report: authentication failed")),
    "opt-out": (BounceClass.UNSUBSCRIBE, "feedback report: opt-out"),
    "opt-out-list": (BounceClass.UNSUBSCRIBE, "feedback report: opt-out"),
}


def _judge_failure(one: RecipientStatus, returned: OriginalMessage) -> Classified:
    match one.action:
        case Action.DELIVERED | Action.RELAYED | Action.EXPANDED:
            return Classified(reported=one, verdict=BounceClass.UNRELATED, rule=f"{one.action}, not failed")
        case Action.DELAYED:
            # RFC 3464 §2.3.3: it is tried on, and what comes of it is told by another mail, or by none.
            return Classified(reported=one, verdict=BounceClass.SOFT, rule="delayed", final=False)
        case Action.FAILED | None:
            return _decide(one, returned)
        case other:
            assert_never(other)


def _decide(one: RecipientStatus, returned: OriginalMessage) -> Classified:
    """Return the judgement on a failure. ``returned``: what came back of the message, which names who had sent it."""
    senders = tuple(filter(None, (returned.sender, returned.return_path)))
    succeeded = one.status is not None and one.status[0] == "2"
    text = one.quoted or one.diagnostic
    said = _classify(one, text, senders)
    if succeeded and not said.suppresses:
        return Classified(reported=one, verdict=BounceClass.UNRELATED, rule="a status of success")
    if one.quoted and (said.confidence is Confidence.LOW or (said.suppresses and _is_there(one.diagnostic))):
        # The remote host's own words come first. Where they give no reason, or the local server knows that the mailbox
        # is there, what the local server says counts.
        text = one.diagnostic
        said = _classify(one, text, senders)
    address = one.original or one.address or ""
    return Classified(
        reported=one,
        verdict=BounceClass.HARD if said.suppresses else _verdict_of(said),
        rule=f"{said.cause}: {said.rule}",
        cause=said.cause,
        words=words_for_all(text, address, one.status) if said.doubtful else "",
    )


def _is_there(text: str) -> bool:
    """Whether a text says that the mailbox exists: it is full, or at rest."""
    there = (Evidence.MAILBOX_FULL, Evidence.INACTIVE)
    return any(found.evidence in there for found in find_evidence(clean(text)))


def _classify(one: RecipientStatus, text: str, senders: tuple[str, ...]) -> Classification:
    return classify(
        Statement(
            text=text,
            code=one.reply_code,
            status=one.status if one.status is None or one.status[0] != "2" else None,
            phase=one.phase,
            provider=_provider_of(one),
            recipient=one.original or one.address or "",
            senders=senders,
        )
    )


def _provider_of(one: RecipientStatus) -> str:
    """Return the known mailbox provider that refused, by the recipient's domain or the remote host. Empty: no one."""
    table = provider_table()
    famous = table.of_domain(domain_of((one.original or one.address or "").lower()))
    if famous is not None:
        return famous
    host = (one.remote_mta or "").partition(" ")[0].strip("[]()").lower().rstrip(".")
    found = table.of_hosts([host]) if host else OTHER_PROVIDERS
    return "" if found == OTHER_PROVIDERS else found


def _verdict_of(said: Classification) -> BounceClass:
    match said.fault:
        case Blame.SENDER | Blame.US:
            return BounceClass.BLOCK
        case Blame.MESSAGE:
            return BounceClass.BLOCK if said.cause is Cause.CONTENT else BounceClass.SOFT
        case Blame.RECIPIENT | Blame.HOST:
            return BounceClass.SOFT
        case other:
            assert_never(other)
