"""Events of SendGrid's Event Webhook: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postroad.bounce.report import Action, MailKind, OriginalMessage, ParsedMail, RecipientStatus
from postroad.bounce.services.fields import address, delivered, failed, tag_of, word

_MAX_EVENTS = 10_000


def events(document: object) -> Iterator[dict[str, Any]]:
    """The events of one call, which are many."""
    if isinstance(document, list):
        yield from (one for one in document[:_MAX_EVENTS] if isinstance(one, dict))


def read(event: dict[str, Any]) -> ParsedMail | None:
    """Return what an event says. None: nothing that counts here, such as that a message was opened."""
    whom = event.get("email")
    kind, feedback_type = MailKind.DSN, ""
    match word(event.get("event")):
        case "bounce":
            # "blocked": it goes on trying with later messages, so it is not about the mailbox.
            blocked = event.get("type") == "blocked"
            recipient = failed(whom, event.get("reason"), status=event.get("status"), temporary=blocked)
        case "deferred":
            said = event.get("response") or event.get("reason")
            recipient = failed(whom, said, temporary=True, action=Action.DELAYED)
        case "dropped":
            kind, feedback_type, recipient = _dropped(event)
        case "delivered":
            recipient = delivered(whom)
        case "spamreport":
            kind, feedback_type, recipient = MailKind.FEEDBACK, "abuse", RecipientStatus(address=address(whom))
        case "unsubscribe" | "group_unsubscribe":
            kind, feedback_type, recipient = MailKind.FEEDBACK, "opt-out", RecipientStatus(address=address(whom))
        case _:
            return None
    return ParsedMail(
        kind=kind,
        format="SendGrid",
        recipients=(recipient,),
        returned=OriginalMessage(message_id=word(event.get("smtp-id")), tag=tag_of(event)),
        feedback_type=feedback_type,
    )


def _dropped(event: dict[str, Any]) -> tuple[MailKind, str, RecipientStatus]:
    """What it did not send because of a list of its own. That an address bounced once is no news of its mailbox."""
    whom, reason = event.get("email"), word(event.get("reason")).lower()
    if "unsubscribed" in reason:
        return MailKind.FEEDBACK, "opt-out", RecipientStatus(address=address(whom))
    if "spam report" in reason:
        return MailKind.FEEDBACK, "abuse", RecipientStatus(address=address(whom))
    return MailKind.DSN, "", failed(whom, f"Dropped by SendGrid: {word(event.get('reason'))}")
