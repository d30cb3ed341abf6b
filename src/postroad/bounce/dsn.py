"""Parses delivery status notifications (RFC 3464, RFC 6533): message fields, then a block for each recipient."""

from __future__ import annotations

import re
from collections.abc import Iterator

from postroad.bounce.patterns import (
    collapse_whitespace,
    decode_xtext,
    find_reply_code,
    find_status,
    parse_typed_address,
)
from postroad.bounce.report import Action, RecipientStatus

TYPES = ("message/delivery-status", "message/global-delivery-status")
MAX_RECIPIENTS = 100

_FIELD = re.compile(r"^([A-Za-z][\w-]{0,60})[ \t]*:[ \t]*([^\n]*(?:\n[ \t]+[^\n]*)*)", re.MULTILINE)
# An MTA without MIME support writes the fields into its text, not into a part of their own.
MARK = re.compile(r"^[ \t]*(?:final|original)-recipient[ \t]*:", re.MULTILINE | re.IGNORECASE)
_ACTION = re.compile(
    r"^[ \t]*action[ \t]*:[ \t]*(?:fail|delayed|delivered|relayed|expanded)", re.MULTILINE | re.IGNORECASE
)
_TYPED = re.compile(r"(?:[\d.a-f:]{2,45} #\d\.\d{1,3}\.\d{1,3} )?[\w-]{1,20}\s*;", re.IGNORECASE)
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")

_ACTIONS = {action.value: action for action in Action} | {"failure": Action.FAILED, "deliverable": Action.DELIVERED}


def looks_like_dsn(text: str) -> bool:
    """Return whether a text contains the fields of a DSN, whatever its media type is."""
    return MARK.search(text) is not None and _ACTION.search(text) is not None


def parse_dsn(text: str) -> tuple[dict[str, str], tuple[RecipientStatus, ...]]:
    """Parse a DSN.

    Args:
        text: Content of the message/delivery-status part.

    Returns:
        The message fields (RFC 3464 §2.2), with names in lower case, and the status of each recipient (§2.3).
    """
    message: dict[str, str] = {}
    blocks: list[dict[str, str]] = []
    for fields in _blocks(text):
        if "final-recipient" in fields or "original-recipient" in fields:
            blocks.append(fields)
        elif not blocks:
            message |= fields
        elif "action" not in blocks[-1]:
            blocks[-1].update(fields)  # An empty line split the block.
    if "original-envelope-id" in message:
        message["original-envelope-id"] = decode_xtext(message["original-envelope-id"])
    return message, tuple(_recipient(fields) for fields in blocks[:MAX_RECIPIENTS])


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each block. A block ends at an empty line, or before a second Final-Recipient."""
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
    # IronPort writes the remote reply into a field of its own: <192.0.2.1 #5.0.0 smtp; 550 "Unknown user">
    diagnostic = fields.get("diagnostic-code") or fields.get("x-supplementary-info", "").strip("<>")
    text = diagnostic.partition(";")[2].strip() if _TYPED.match(diagnostic) else diagnostic
    status = find_status(fields.get("status", ""))
    quoted_status = find_status(text)
    # A gateway may reduce the status of the reply that it quotes, such as 5.0.0 for "550 5.1.1 User unknown".
    if quoted_status is not None and (status is None or (status.endswith(".0.0") and status[0] == quoted_status[0])):
        status = quoted_status
    return RecipientStatus(
        address=parse_typed_address(fields["final-recipient"]) if fields.get("final-recipient") else None,
        original=parse_typed_address(fields["original-recipient"]) if fields.get("original-recipient") else None,
        action=_ACTIONS.get(fields.get("action", "").split("(")[0].strip().rstrip(".").lower()),
        status=status,
        reply_code=find_reply_code(text),
        diagnostic=collapse_whitespace(text),
        remote_mta=fields.get("remote-mta", "").partition(";")[2].strip() or None,
        fields=fields,
    )
