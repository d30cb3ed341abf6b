"""Notifications of Amazon SES, as SNS sends them by mail and by HTTP: JSON with a bounce, a complaint or a delivery."""

from __future__ import annotations

import json
from typing import Any

from postroad.bounce.report import Action, Kind, Reported, Returned
from postroad.bounce.words import answers_rcpt, find_reply_code, find_status, first_address, squeeze

_MARK = '"notificationType'


def find_notification(text: str) -> dict[str, Any] | None:
    """The notification in a text, be it in an envelope of SNS, or torn by a mail server at long lines."""
    start = text.find("{")
    if start < 0 or _MARK not in text.replace('\\"', '"'):
        return None
    try:
        # sendmail breaks lines of more than 990 characters: an exclamation mark, a line end, a blank.
        found, _ = json.JSONDecoder(strict=False).raw_decode(text[start:].replace("!\n ", ""))
        if isinstance(found, dict) and isinstance(found.get("Message"), str):
            found = json.loads(found["Message"], strict=False)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "notificationType" in found else None


def read_notification(found: dict[str, Any]) -> tuple[Kind, str, tuple[Reported, ...], Returned] | None:
    """Kind, type of feedback, recipients and what is known of the message. None: it is of another sort."""
    details = {"Bounce": "bounce", "Complaint": "complaint", "Delivery": "delivery"}
    name = details.get(str(found.get("notificationType")))
    event, mail = _table(found.get(name or "")), _table(found.get("mail"))
    returned = Returned(
        message_id=_header(mail, "message-id"), return_path=first_address(str(mail.get("source"))) or ""
    )
    match name:
        case "bounce":
            temporary = event.get("bounceType") == "Transient"
            recipients = tuple(_bounced(_table(one), temporary) for one in _list(event.get("bouncedRecipients")))
            return Kind.DSN, "", recipients, returned
        case "complaint":
            complained = _list(event.get("complainedRecipients"))
            told = tuple(Reported(address=first_address(str(_table(one).get("emailAddress")))) for one in complained)
            return Kind.FEEDBACK, str(event.get("complaintFeedbackType") or "abuse").lower(), told, returned
        case "delivery":
            delivered = [first_address(str(one)) for one in _list(event.get("recipients") or mail.get("destination"))]
            told = tuple(Reported(address=one, action=Action.DELIVERED, status="2.0.0") for one in delivered)
            return Kind.DSN, "", told, returned
        case _:
            return None


def _bounced(one: dict[str, Any], temporary: bool) -> Reported:
    said = str(one.get("diagnosticCode") or "").partition(";")[2].strip()
    given = find_status(str(one.get("status") or "")) or find_status(said)
    # SES says "Transient" of a full mailbox with status 5.2.2 as well; what it says is the milder word.
    status = f"4{given[1:]}" if temporary and given else given
    return Reported(
        address=first_address(str(one.get("emailAddress") or "")),
        action=Action.FAILED,
        status=status,
        reply_code=find_reply_code(said),
        diagnostic=squeeze(said),
        at_rcpt=answers_rcpt(said),
    )


def _header(mail: dict[str, Any], name: str) -> str:
    for one in map(_table, _list(mail.get("headers"))):
        if str(one.get("name")).lower() == name:
            return str(one.get("value"))
    return ""


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value[:100] if isinstance(value, list) else []
