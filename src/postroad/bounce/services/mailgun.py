"""Webhooks of Mailgun, one event a call: https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postroad.bounce.report import Action, MailKind, OriginalMessage, ParsedMail, RecipientStatus
from postroad.bounce.services.fields import address, delivered, failed, table, tag_of, word


def events(document: object) -> Iterator[dict[str, Any]]:
    """The one event of a call, without its signature, which is another each time."""
    if isinstance(document, dict) and isinstance(document.get("event-data"), dict):
        yield document["event-data"]


def read(event: dict[str, Any]) -> ParsedMail | None:
    """Return what an event says. None: nothing that counts here."""
    whom = event.get("recipient")
    kind, feedback_type = MailKind.DSN, ""
    match word(event.get("event")):
        case "failed":
            kind, feedback_type, recipient = _failed(event)
        case "rejected":
            reason = word(table(event.get("reject")).get("reason"))
            recipient = failed(whom, f"Message rejected by Mailgun: {reason}")
        case "delivered":
            recipient = delivered(whom)
        case "complained":
            kind, feedback_type, recipient = MailKind.FEEDBACK, "abuse", RecipientStatus(address=address(whom))
        case "unsubscribed":
            kind, feedback_type, recipient = MailKind.FEEDBACK, "opt-out", RecipientStatus(address=address(whom))
        case _:
            return None
    headers = table(table(event.get("message")).get("headers"))
    return ParsedMail(
        kind=kind,
        format="Mailgun",
        recipients=(recipient,),
        returned=OriginalMessage(message_id=word(headers.get("message-id")), tag=tag_of(event.get("user-variables"))),
        feedback_type=feedback_type,
    )


def _failed(event: dict[str, Any]) -> tuple[MailKind, str, RecipientStatus]:
    whom, told = event.get("recipient"), table(event.get("delivery-status"))
    match word(event.get("reason")):
        case "suppress-unsubscribe":
            return MailKind.FEEDBACK, "opt-out", RecipientStatus(address=address(whom))
        case "suppress-complaint":
            return MailKind.FEEDBACK, "abuse", RecipientStatus(address=address(whom))
        case "suppress-bounce":
            # It bounced once, and was not tried again: no news of its mailbox.
            return MailKind.DSN, "", failed(whom, "Not sent by Mailgun: it is on its list of bounces")
        case _:
            # What is temporary is tried on.
            temporary = event.get("severity") == "temporary"
            recipient = failed(
                whom,
                word(told.get("message")) or word(told.get("description")),
                status=told.get("enhanced-code"),
                code=told.get("code"),
                temporary=temporary,
                action=Action.DELAYED if temporary else Action.FAILED,
            )
            return MailKind.DSN, "", recipient
