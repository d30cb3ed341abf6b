"""Amazon SES, through SNS by HTTP or by mail: feedback notifications, and events of a configuration set.

https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from postroad.bounce.report import Action, MailKind, OriginalMessage, ParsedMail, RecipientStatus
from postroad.bounce.services.fields import address, delivered, failed, items, table, tag_of, word

_MARKS = ('"notificationType', '"eventType')
_TYPE = re.compile(r"^\s*[\w-]{1,20}\s*;")  # smtp; 550 …
_TAGS_HEADER = "x-ses-message-tags"


def find_notification(text: str) -> dict[str, Any] | None:
    """The notification in the text of a mail, be it in an envelope of SNS, or torn by a mail server at long lines."""
    start = text.find("{")
    plain = text.replace('\\"', '"')
    if start < 0 or not any(mark in plain for mark in _MARKS):
        return None
    try:
        # sendmail breaks lines of more than 990 characters: an exclamation mark, a line end, a blank.
        found, _ = json.JSONDecoder(strict=False).raw_decode(text[start:].replace("!\n ", ""))
        if isinstance(found, dict) and isinstance(found.get("Message"), str):
            found = json.loads(found["Message"], strict=False)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and ("notificationType" in found or "eventType" in found) else None


def events(document: object) -> Iterator[dict[str, Any]]:
    """The one event of a message of SNS, whose text is this document."""
    if isinstance(document, dict):
        yield document


def read(event: dict[str, Any]) -> ParsedMail | None:
    """Return what an event says. None: nothing that counts here."""
    mail = table(event.get("mail"))
    kind, feedback_type = MailKind.DSN, ""
    match word(event.get("notificationType") or event.get("eventType")):
        case "Bounce":
            told = table(event.get("bounce"))
            if told.get("bounceType") == "Transient" and _gives_no_reason(told):
                # Amazon says so of out-of-office replies too: it is no failure of this mailbox.
                kind = MailKind.OTHER
            elif told.get("bounceSubType") == "UnsubscribedRecipient":
                kind, feedback_type = MailKind.FEEDBACK, "opt-out"
            recipients = _bounced(told)
        case "Complaint":
            told = table(event.get("complaint"))
            kind, feedback_type = MailKind.FEEDBACK, word(told.get("complaintFeedbackType")).lower() or "abuse"
            recipients = [
                RecipientStatus(address=address(table(one).get("emailAddress")))
                for one in items(told.get("complainedRecipients"))
            ]
        case "Delivery":
            told = table(event.get("delivery"))
            recipients = [delivered(one) for one in items(told.get("recipients") or mail.get("destination"))]
        case "DeliveryDelay":
            told = table(event.get("deliveryDelay"))
            delayed = items(told.get("delayedRecipients"))
            recipients = [_refused(table(one), Action.DELAYED, temporary=True) for one in delayed]
        case "Reject":
            # Of all reasons there is one, "Bad content": SES found a virus.
            said = f"Message rejected: {word(table(event.get('reject')).get('reason'))}"
            recipients = [failed(one, said) for one in items(mail.get("destination"))]
        case "Subscription" if _unsubscribes(table(event.get("subscription"))):
            kind, feedback_type = MailKind.FEEDBACK, "opt-out"
            recipients = [RecipientStatus(address=address(one)) for one in items(mail.get("destination"))]
        case _:
            return None
    return ParsedMail(
        kind=kind,
        format="Amazon SES",
        recipients=tuple(recipients),
        returned=_returned(mail),
        feedback_type=feedback_type,
    )


def _gives_no_reason(told: dict[str, Any]) -> bool:
    recipients = [table(one) for one in items(told.get("bouncedRecipients"))]
    return told.get("bounceSubType") in ("General", None) and not any(one.get("diagnosticCode") for one in recipients)


def _bounced(told: dict[str, Any]) -> list[RecipientStatus]:
    # SES says "Transient" of a full mailbox with status 5.2.2 as well; what it says is the milder word.
    temporary = told.get("bounceType") == "Transient"
    recipients = [table(one) for one in items(told.get("bouncedRecipients"))]
    says = f"Amazon SES: {word(told.get('bounceType')).lower()} bounce ({word(told.get('bounceSubType'))})"
    return [_bounced_one(one, says, temporary=temporary) for one in recipients]


def _bounced_one(one: dict[str, Any], says: str, *, temporary: bool) -> RecipientStatus:
    """Return a recipient with the words of the receiver, and with those of SES where the receiver gives no reason."""
    found = _refused(one, Action.FAILED, temporary=temporary)
    if found.diagnostic.startswith("Amazon SES"):
        return found
    own = f"{says}: {found.diagnostic}" if found.diagnostic else says
    return structs.replace(found, diagnostic=own, quoted=found.diagnostic)


def _refused(one: dict[str, Any], action: Action, *, temporary: bool) -> RecipientStatus:
    given = str(one.get("diagnosticCode") or "")
    said = _TYPE.sub("", given).strip()
    return failed(one.get("emailAddress"), said, status=one.get("status"), temporary=temporary, action=action)


def _unsubscribes(told: dict[str, Any]) -> bool:
    return table(told.get("newTopicPreferences")).get("unsubscribeAll") is True


def _returned(mail: dict[str, Any]) -> OriginalMessage:
    tags = dict(pair.strip().partition("=")[::2] for pair in _header(mail, _TAGS_HEADER).split(","))
    return OriginalMessage(
        message_id=_header(mail, "message-id"),
        return_path=address(mail.get("source")) or "",
        tag=tag_of(mail.get("tags")) or tag_of(tags),
    )


def _header(mail: dict[str, Any], name: str) -> str:
    for one in map(table, items(mail.get("headers"))):
        if word(one.get("name")).lower() == name:
            return word(one.get("value"))
    return ""
