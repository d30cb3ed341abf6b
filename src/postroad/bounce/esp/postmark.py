"""Parses webhooks of Postmark, one event per call: https://postmarkapp.com/developer/webhooks/webhooks-overview."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postroad.bounce.esp.fields import address, delivered, failed, feedback, string, table, tag_of
from postroad.bounce.report import MailKind, OriginalMessage, ParsedMail, RecipientStatus

_NO_FAILURES = {
    "AutoResponder": (MailKind.AUTO_REPLY, ""),
    "AddressChange": (MailKind.AUTO_REPLY, ""),
    "ChallengeVerification": (MailKind.CHALLENGE, ""),
    "SpamComplaint": (MailKind.FEEDBACK, "abuse"),
    "Unsubscribe": (MailKind.FEEDBACK, "opt-out"),
}
"""Types that Postmark calls a bounce, although they are not failures."""

_FAILURES = {
    # True: Postmark regards the failure as temporary.
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
    """Yield the event of a call, without the mail that it may contain."""
    if isinstance(document, dict):
        yield {name: value for name, value in document.items() if name != "Content"}


def parse(event: dict[str, Any]) -> ParsedMail | None:
    """Parse an event. Returns None for an event of no interest."""
    recipient_address = event.get("Email") or event.get("Recipient")
    kind, feedback_type = MailKind.DSN, ""
    match string(event.get("RecordType")):
        case "Bounce":
            return _bounce(event)
        case "Delivery":
            recipient = delivered(recipient_address)
        case "SpamComplaint":
            kind, feedback_type, recipient = feedback("abuse", recipient_address)
        case "SubscriptionChange" if _is_opt_out(event):
            kind, feedback_type, recipient = feedback("opt-out", recipient_address)
        case _:
            return None
    return _result(event, kind, recipient, feedback_type)


def _bounce(event: dict[str, Any]) -> ParsedMail | None:
    bounce_type, recipient_address = string(event.get("Type")), event.get("Email")
    if bounce_type in _NO_FAILURES:
        kind, feedback_type = _NO_FAILURES[bounce_type]
        return _result(event, kind, RecipientStatus(address=address(recipient_address)), feedback_type)
    if bounce_type not in _FAILURES:
        return None
    diagnostic = string(event.get("Details")) or string(event.get("Description"))
    return _result(event, MailKind.DSN, failed(recipient_address, diagnostic, temporary=_FAILURES[bounce_type]))


def _is_opt_out(event: dict[str, Any]) -> bool:
    """Return whether the recipient unsubscribed, and the change is not due to a bounce or an operator."""
    by_recipient = event.get("Origin") == "Recipient" and event.get("SuppressionReason") == "ManualSuppression"
    return by_recipient and event.get("SuppressSending") is True


def _result(event: dict[str, Any], kind: MailKind, recipient: RecipientStatus, feedback_type: str = "") -> ParsedMail:
    return ParsedMail(
        kind=kind,
        format="Postmark",
        recipients=(recipient,),
        returned=OriginalMessage(tag=tag_of(table(event.get("Metadata")))),
        feedback_type=feedback_type,
    )
