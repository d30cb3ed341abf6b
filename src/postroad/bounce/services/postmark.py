"""Webhooks of Postmark, one event a call: https://postmarkapp.com/developer/webhooks/webhooks-overview."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postroad.bounce.report import MailKind, OriginalMessage, ParsedMail, RecipientStatus
from postroad.bounce.services.fields import address, delivered, failed, table, tag_of, word

_NO_FAILURES = {
    "AutoResponder": (MailKind.AUTO_REPLY, ""),
    "AddressChange": (MailKind.AUTO_REPLY, ""),
    "ChallengeVerification": (MailKind.CHALLENGE, ""),
    "SpamComplaint": (MailKind.FEEDBACK, "abuse"),
    "Unsubscribe": (MailKind.FEEDBACK, "opt-out"),
}
"""Types of what Postmark calls a bounce, and is none."""

_FAILURES = {
    # True: Postmark does not take it for the end of the address.
    "HardBounce": False,
    "BadEmailAddress": False,
    "Blocked": False,
    "SpamNotification": False,
    "VirusNotification": False,
    "DMARCPolicy": False,
    "ManuallyDeactivated": False,
    "SMTPApiError": False,
    "Unknown": True,
    "Transient": True,
    "SoftBounce": True,
    "DnsError": True,
}


def events(document: object) -> Iterator[dict[str, Any]]:
    """The one event of a call, without the mail that it may bring along."""
    if isinstance(document, dict):
        yield {name: value for name, value in document.items() if name != "Content"}


def read(event: dict[str, Any]) -> ParsedMail | None:
    """Return what an event says. None: nothing that counts here."""
    whom = event.get("Email") or event.get("Recipient")
    kind, feedback_type = MailKind.DSN, ""
    match word(event.get("RecordType")):
        case "Bounce":
            return _bounce(event)
        case "Delivery":
            recipient = delivered(whom)
        case "SpamComplaint":
            kind, feedback_type, recipient = MailKind.FEEDBACK, "abuse", RecipientStatus(address=address(whom))
        case "SubscriptionChange" if _says_no_more(event):
            kind, feedback_type, recipient = MailKind.FEEDBACK, "opt-out", RecipientStatus(address=address(whom))
        case _:
            return None
    return _made(event, kind, recipient, feedback_type)


def _bounce(event: dict[str, Any]) -> ParsedMail | None:
    kind, whom = word(event.get("Type")), event.get("Email")
    if kind in _NO_FAILURES:
        what, feedback_type = _NO_FAILURES[kind]
        return _made(event, what, RecipientStatus(address=address(whom)), feedback_type)
    if kind not in _FAILURES:
        return None
    said = word(event.get("Details")) or word(event.get("Description"))
    return _made(event, MailKind.DSN, failed(whom, said, temporary=_FAILURES[kind]))


def _says_no_more(event: dict[str, Any]) -> bool:
    """Whether the recipient asked for it, and not a bounce or somebody at the desk."""
    asked = event.get("Origin") == "Recipient" and event.get("SuppressionReason") == "ManualSuppression"
    return asked and event.get("SuppressSending") is True


def _made(event: dict[str, Any], kind: MailKind, recipient: RecipientStatus, feedback_type: str = "") -> ParsedMail:
    return ParsedMail(
        kind=kind,
        format="Postmark",
        recipients=(recipient,),
        returned=OriginalMessage(tag=tag_of(table(event.get("Metadata")))),
        feedback_type=feedback_type,
    )
