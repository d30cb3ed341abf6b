"""Parses webhooks of Mailgun, one event per call: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postroad.bounce.esp.fields import delivered, failed, feedback, string, table, tag_of
from postroad.bounce.report import Action, MailKind, OriginalMessage, ParsedMail, RecipientStatus


def events(document: object) -> Iterator[dict[str, Any]]:
    """Yield the event of a call, without its signature, which differs in each call."""
    if isinstance(document, dict) and isinstance(document.get("event-data"), dict):
        yield document["event-data"]


def parse(event: dict[str, Any]) -> ParsedMail | None:
    """Parse an event. Returns None for an event of no interest."""
    recipient_address = event.get("recipient")
    kind, feedback_type = MailKind.DSN, ""
    match string(event.get("event")):
        case "failed":
            kind, feedback_type, recipient = _failed(event)
        case "rejected":
            reason = string(table(event.get("reject")).get("reason"))
            recipient = failed(recipient_address, f"Message rejected by Mailgun: {reason}")
        case "delivered":
            recipient = delivered(recipient_address)
        case "complained":
            kind, feedback_type, recipient = feedback("abuse", recipient_address)
        case "unsubscribed":
            kind, feedback_type, recipient = feedback("opt-out", recipient_address)
        case _:
            return None
    headers = table(table(event.get("message")).get("headers"))
    return ParsedMail(
        kind=kind,
        format="Mailgun",
        recipients=(recipient,),
        returned=OriginalMessage(message_id=string(headers.get("message-id")), tag=tag_of(event.get("user-variables"))),
        feedback_type=feedback_type,
    )


def _failed(event: dict[str, Any]) -> tuple[MailKind, str, RecipientStatus]:
    recipient_address, status = event.get("recipient"), table(event.get("delivery-status"))
    match string(event.get("reason")):
        case "suppress-unsubscribe":
            return feedback("opt-out", recipient_address)
        case "suppress-complaint":
            return feedback("abuse", recipient_address)
        case "suppress-bounce":
            # An earlier message bounced, so this one was not sent. That is no evidence about the mailbox.
            return MailKind.DSN, "", failed(recipient_address, "Not sent by Mailgun: it is on its list of bounces")
        case _:
            # Mailgun tries again after a temporary failure.
            temporary = event.get("severity") == "temporary"
            recipient = failed(
                recipient_address,
                string(status.get("message")) or string(status.get("description")),
                status=status.get("enhanced-code"),
                code=status.get("code"),
                temporary=temporary,
                action=Action.DELAYED if temporary else Action.FAILED,
            )
            return MailKind.DSN, "", recipient
