"""Parses events of Amazon SES: feedback notifications and events of a configuration set, by SNS over HTTP or by mail.

https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from postroad.bounce.esp.fields import address, delivered, failed, items, string, table, tag_of
from postroad.bounce.report import Action, MailKind, OriginalMessage, ParsedMail, RecipientStatus

_TYPE_KEYS = ('"notificationType', '"eventType')
_TYPE = re.compile(r"^\s*[\w-]{1,20}\s*;")  # smtp; 550 …
_TAGS_HEADER = "x-ses-message-tags"


def find_notification(text: str) -> dict[str, Any] | None:
    """Return the notification in the text of a mail, with or without an SNS envelope, and with broken long lines."""
    start = text.find("{")
    plain = text.replace('\\"', '"')
    if start < 0 or not any(key in plain for key in _TYPE_KEYS):
        return None
    try:
        # sendmail breaks lines longer than 990 characters: an exclamation mark, a line end, a space.
        event, _ = json.JSONDecoder(strict=False).raw_decode(text[start:].replace("!\n ", ""))
        if isinstance(event, dict) and isinstance(event.get("Message"), str):
            event = json.loads(event["Message"], strict=False)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and ("notificationType" in event or "eventType" in event) else None


def events(document: object) -> Iterator[dict[str, Any]]:
    """Yield the event of an SNS message, whose text is this document."""
    if isinstance(document, dict):
        yield document


def parse(event: dict[str, Any]) -> ParsedMail | None:
    """Parse an event. Returns None for an event of no interest."""
    mail = table(event.get("mail"))
    kind, feedback_type = MailKind.DSN, ""
    match string(event.get("notificationType") or event.get("eventType")):
        case "Bounce":
            kind, feedback_type, recipients = _parse_bounce(table(event.get("bounce")))
        case "Complaint":
            complaint = table(event.get("complaint"))
            kind, feedback_type = MailKind.FEEDBACK, string(complaint.get("complaintFeedbackType")).lower() or "abuse"
            recipients = [
                RecipientStatus(address=address(table(entry).get("emailAddress")))
                for entry in items(complaint.get("complainedRecipients"))
            ]
        case "Delivery":
            delivery = table(event.get("delivery"))
            recipients = [delivered(entry) for entry in items(delivery.get("recipients") or mail.get("destination"))]
        case "DeliveryDelay":
            entries = items(table(event.get("deliveryDelay")).get("delayedRecipients"))
            recipients = [_status_of(table(entry), Action.DELAYED, temporary=True) for entry in entries]
        case "Reject":
            # The only reason is "Bad content": SES found a virus.
            diagnostic = f"Message rejected: {string(table(event.get('reject')).get('reason'))}"
            recipients = [failed(entry, diagnostic) for entry in items(mail.get("destination"))]
        case "Subscription" if _is_opt_out(table(event.get("subscription"))):
            kind, feedback_type = MailKind.FEEDBACK, "opt-out"
            recipients = [RecipientStatus(address=address(entry)) for entry in items(mail.get("destination"))]
        case _:
            return None
    return ParsedMail(
        kind=kind,
        format="Amazon SES",
        recipients=tuple(recipients),
        returned=_parse_returned(mail),
        feedback_type=feedback_type,
    )


def _parse_bounce(bounce: dict[str, Any]) -> tuple[MailKind, str, list[RecipientStatus]]:
    kind, feedback_type = MailKind.DSN, ""
    # SES reports "Transient" for a full mailbox with status 5.2.2 too. The milder classification counts.
    temporary = bounce.get("bounceType") == "Transient"
    entries = [table(entry) for entry in items(bounce.get("bouncedRecipients"))]
    has_reason = bounce.get("bounceSubType") not in ("General", None) or any(
        entry.get("diagnosticCode") for entry in entries
    )
    if temporary and not has_reason:
        # SES reports out-of-office replies in this way too, so this is not a failure of the mailbox.
        kind = MailKind.OTHER
    elif bounce.get("bounceSubType") == "UnsubscribedRecipient":
        kind, feedback_type = MailKind.FEEDBACK, "opt-out"
    summary = f"Amazon SES: {string(bounce.get('bounceType')).lower()} bounce ({string(bounce.get('bounceSubType'))})"
    return kind, feedback_type, [_bounce_status(entry, summary, temporary=temporary) for entry in entries]


def _bounce_status(entry: dict[str, Any], summary: str, *, temporary: bool) -> RecipientStatus:
    """Return the status of a recipient, with the receiver's reply, and with SES's own summary before it."""
    status = _status_of(entry, Action.FAILED, temporary=temporary)
    if status.diagnostic.startswith("Amazon SES"):
        return status
    diagnostic = f"{summary}: {status.diagnostic}" if status.diagnostic else summary
    return structs.replace(status, diagnostic=diagnostic, quoted=status.diagnostic)


def _status_of(entry: dict[str, Any], action: Action, *, temporary: bool) -> RecipientStatus:
    diagnostic = _TYPE.sub("", str(entry.get("diagnosticCode") or "")).strip()
    return failed(entry.get("emailAddress"), diagnostic, status=entry.get("status"), temporary=temporary, action=action)


def _is_opt_out(subscription: dict[str, Any]) -> bool:
    return table(subscription.get("newTopicPreferences")).get("unsubscribeAll") is True


def _parse_returned(mail: dict[str, Any]) -> OriginalMessage:
    tags = dict(pair.strip().partition("=")[::2] for pair in _header(mail, _TAGS_HEADER).split(","))
    return OriginalMessage(
        message_id=_header(mail, "message-id"),
        return_path=address(mail.get("source")) or "",
        tag=tag_of(mail.get("tags")) or tag_of(tags),
    )


def _header(mail: dict[str, Any], name: str) -> str:
    for field in map(table, items(mail.get("headers"))):
        if string(field.get("name")).lower() == name:
            return string(field.get("value"))
    return ""
