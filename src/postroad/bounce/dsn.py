"""Delivery status notifications (RFC 3464, RFC 6533): fields of the message, then a block for each recipient."""

from __future__ import annotations

import re
from collections.abc import Iterator

from postroad.bounce.report import Action, RecipientStatus
from postroad.bounce.words import decode_xtext, find_reply_code, find_status, read_typed_address, squeeze

TYPES = ("message/delivery-status", "message/global-delivery-status")
MAX_RECIPIENTS = 100

_FIELD = re.compile(r"^([A-Za-z][\w-]{0,60})[ \t]*:[ \t]*([^\n]*(?:\n[ \t]+[^\n]*)*)", re.MULTILINE)
# Fields may come without the blocks: an MTA that knows no MIME writes them into its text.
MARK = re.compile(r"^[ \t]*(?:final|original)-recipient[ \t]*:", re.MULTILINE | re.IGNORECASE)
_ACTION = re.compile(
    r"^[ \t]*action[ \t]*:[ \t]*(?:fail|delayed|delivered|relayed|expanded)", re.MULTILINE | re.IGNORECASE
)
_TYPED = re.compile(r"(?:[\d.a-f:]{2,45} #\d\.\d{1,3}\.\d{1,3} )?[\w-]{1,20}\s*;", re.IGNORECASE)
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")

_ACTIONS = {action.value: action for action in Action} | {"failure": Action.FAILED, "deliverable": Action.DELIVERED}


def looks_like_dsn(text: str) -> bool:
    """Whether a text that no header calls a DSN has its fields nevertheless."""
    return MARK.search(text) is not None and _ACTION.search(text) is not None


def read_dsn(text: str) -> tuple[dict[str, str], tuple[RecipientStatus, ...]]:
    """Fields of the message, names in lower case, and what is said of each recipient."""
    message: dict[str, str] = {}
    blocks: list[dict[str, str]] = []
    for fields in _blocks(text):
        if "final-recipient" in fields or "original-recipient" in fields:
            blocks.append(fields)
        elif not blocks:
            message |= fields
        elif "action" not in blocks[-1]:
            blocks[-1].update(fields)  # Torn apart by an empty line.
    if "original-envelope-id" in message:
        message["original-envelope-id"] = decode_xtext(message["original-envelope-id"])
    return message, tuple(_recipient(fields) for fields in blocks[:MAX_RECIPIENTS])


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Fields between empty lines. A second Final-Recipient begins another block, even without one."""
    for paragraph in _EMPTY_LINE.split(text):
        block: dict[str, str] = {}
        for match in _FIELD.finditer(paragraph):
            name = match[1].lower()
            if name == "final-recipient" and name in block:
                yield block
                block = {}
            block.setdefault(name, " ".join(match[2].split()))
        if block:
            yield block


def _recipient(fields: dict[str, str]) -> RecipientStatus:
    # IronPort writes what the remote host said into a field of its own: <192.0.2.1 #5.0.0 smtp; 550 "Unknown user">
    diagnostic = fields.get("diagnostic-code") or fields.get("x-supplementary-info", "").strip("<>")
    words = diagnostic.partition(";")[2].strip() if _TYPED.match(diagnostic) else diagnostic
    status = find_status(fields.get("status", ""))
    said = find_status(words)
    # What a gateway makes of a reply is vaguer than the reply itself: 5.0.0 beside "550 5.1.1 User unknown".
    if said is not None and (status is None or status.endswith(".0.0")) and not (status and status[0] != said[0]):
        status = said
    return RecipientStatus(
        address=read_typed_address(fields["final-recipient"]) if fields.get("final-recipient") else None,
        original=read_typed_address(fields["original-recipient"]) if fields.get("original-recipient") else None,
        action=_ACTIONS.get(fields.get("action", "").split("(")[0].strip().rstrip(".").lower()),
        status=status,
        reply_code=find_reply_code(words),
        diagnostic=squeeze(words),
        remote_mta=fields.get("remote-mta", "").partition(";")[2].strip() or None,
        fields=fields,
    )
