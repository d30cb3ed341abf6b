"""Events of SendGrid's Event Webhook: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from postroad.bounce.report import Action, Kind, Report, Reported, Returned
from postroad.bounce.services.fields import address, delivered, failed, tag_of, word

_MAX_EVENTS = 10_000


def events(document: object) -> Iterator[dict[str, Any]]:
    """The events of one call, which are many."""
    if isinstance(document, list):
        yield from (one for one in document[:_MAX_EVENTS] if isinstance(one, dict))


def read(event: dict[str, Any]) -> Report | None:
    """Return what an event says. None: nothing that counts here, such as that a message was opened."""
    whom = event.get("email")
    kind, feedback_type = Kind.DSN, ""
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
            kind, feedback_type, recipient = Kind.FEEDBACK, "abuse", Reported(address=address(whom))
        case "unsubscribe" | "group_unsubscribe":
            kind, feedback_type, recipient = Kind.FEEDBACK, "opt-out", Reported(address=address(whom))
        case _:
            return None
    return Report(
        kind=kind,
        format="SendGrid",
        recipients=(recipient,),
        returned=Returned(message_id=word(event.get("smtp-id")), tag=tag_of(event)),
        feedback_type=feedback_type,
    )


def _dropped(event: dict[str, Any]) -> tuple[Kind, str, Reported]:
    """What it did not send because of a list of its own. That an address bounced once is no news of its mailbox."""
    whom, reason = event.get("email"), word(event.get("reason")).lower()
    if "unsubscribed" in reason:
        return Kind.FEEDBACK, "opt-out", Reported(address=address(whom))
    if "spam report" in reason:
        return Kind.FEEDBACK, "abuse", Reported(address=address(whom))
    return Kind.DSN, "", failed(whom, f"Dropped by SendGrid: {word(event.get('reason'))}")
