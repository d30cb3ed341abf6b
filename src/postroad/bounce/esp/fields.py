"""Reads fields of an event: untrusted JSON, within bounds and without exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postroad.bounce.patterns import collapse_whitespace, find_phase, find_reply_code, find_status, first_address
from postroad.bounce.report import Action, MailKind, RecipientStatus
from postroad.mail.tag import TAG

MAX_ITEMS = 100
MAX_STRING = 500


def table(value: object) -> dict[str, Any]:
    """Return a value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """Return the first MAX_ITEMS elements of a value if it is an array, else an empty list."""
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def string(value: object) -> str:
    """Return the first MAX_STRING characters of a value if it is a string, else an empty string."""
    return value[:MAX_STRING] if isinstance(value, str) else ""


def address(value: object) -> str | None:
    """Return the first address of a value."""
    return first_address(string(value))


def failed(
    recipient: object,
    diagnostic: object,
    *,
    status: object = None,
    code: object = None,
    temporary: bool = False,
    action: Action = Action.FAILED,
) -> RecipientStatus:
    """Return the status of a recipient for whom the delivery failed.

    Args:
        recipient: Address of the recipient.
        diagnostic: Reply that the ESP received, or the ESP's own text.
        status: Enhanced status code.
        code: Reply code.
        temporary: Whether the ESP regards the failure as temporary. The status then becomes 4.y.z.
        action: Result of the delivery.

    Returns:
        The status. Codes that the event lacks are taken from the diagnostic.
    """
    text = collapse_whitespace(diagnostic.replace("\0", " ")) if isinstance(diagnostic, str) else ""
    enhanced_code = find_status(string(status)) or find_status(text)
    if temporary:
        enhanced_code = f"4{enhanced_code[1:]}" if enhanced_code else "4.0.0"
    reply_code = code if isinstance(code, int) and 200 <= code < 600 else None
    return RecipientStatus(
        address=address(recipient),
        action=action,
        status=enhanced_code,
        reply_code=reply_code or find_reply_code(text),
        diagnostic=text,
        phase=find_phase(text),
    )


def delivered(recipient: object) -> RecipientStatus:
    """Return the status of a recipient whose server accepted the message."""
    return RecipientStatus(address=address(recipient), action=Action.DELIVERED, status="2.0.0")


def feedback(feedback_type: str, recipient: object) -> tuple[MailKind, str, RecipientStatus]:
    """Return the kind, the type and the status of a report that a recipient complained or unsubscribed."""
    return MailKind.FEEDBACK, feedback_type, RecipientStatus(address=address(recipient))


def tag_of(values: object) -> str:
    """Return our tag from the metadata that the ESP stored with the message. Some ESPs return a list of one tag."""
    tag = values.get(TAG) if isinstance(values, Mapping) else None
    return string(tag[0] if isinstance(tag, list) and tag else tag)
