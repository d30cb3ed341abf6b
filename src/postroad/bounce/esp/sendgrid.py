"""Parses events of SendGrid's Event Webhook: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postroad.bounce.esp.fields import delivered, failed, feedback, string, tag_of
from postroad.bounce.report import Action, MailKind, OriginalMessage, ParsedMail, RecipientStatus

_MAX_EVENTS = 10_000


def events(document: object) -> Iterator[dict[str, Any]]:
    """Yield the events of one call, at most _MAX_EVENTS."""
    if isinstance(document, list):
        yield from (event for event in document[:_MAX_EVENTS] if isinstance(event, dict))


def parse(event: dict[str, Any]) -> ParsedMail | None:
    """Parse an event. Returns None for an event of no interest, such as an opened message."""
    recipient_address = event.get("email")
    kind, feedback_type = MailKind.DSN, ""
    match string(event.get("event")):
        case "bounce":
            # "blocked": SendGrid still sends later messages to the address, so the failure is not about the mailbox.
            blocked = event.get("type") == "blocked"
            recipient = failed(recipient_address, event.get("reason"), status=event.get("status"), temporary=blocked)
        case "deferred":
            diagnostic = event.get("response") or event.get("reason")
            recipient = failed(recipient_address, diagnostic, temporary=True, action=Action.DELAYED)
        case "dropped":
            kind, feedback_type, recipient = _dropped(event)
        case "delivered":
            recipient = delivered(recipient_address)
        case "spamreport":
            kind, feedback_type, recipient = feedback("abuse", recipient_address)
        case "unsubscribe" | "group_unsubscribe":
            kind, feedback_type, recipient = feedback("opt-out", recipient_address)
        case _:
            return None
    return ParsedMail(
        kind=kind,
        format="SendGrid",
        recipients=(recipient,),
        returned=OriginalMessage(message_id=string(event.get("smtp-id")), tag=tag_of(event)),
        feedback_type=feedback_type,
    )


def _dropped(event: dict[str, Any]) -> tuple[MailKind, str, RecipientStatus]:
    """Parse a message that SendGrid did not send because of its own lists. An earlier bounce is no new evidence."""
    recipient_address, reason = event.get("email"), string(event.get("reason")).lower()
    if "unsubscribed" in reason:
        return feedback("opt-out", recipient_address)
    if "spam report" in reason:
        return feedback("abuse", recipient_address)
    return MailKind.DSN, "", failed(recipient_address, f"Dropped by SendGrid: {string(event.get('reason'))}")
