"""What stands in an event: JSON of which nothing is sure, read within bounds and never raising."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postroad.bounce.report import Action, RecipientStatus
from postroad.bounce.words import find_phase, find_reply_code, find_status, first_address, squeeze
from postroad.mail.tag import TAG

MAX_ITEMS = 100
MAX_WORD = 500


def table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def word(value: object) -> str:
    """A short text. Anything but a text is an empty one."""
    return value[:MAX_WORD] if isinstance(value, str) else ""


def address(value: object) -> str | None:
    return first_address(word(value))


def failed(
    whom: object,
    said: object,
    *,
    status: object = None,
    code: object = None,
    temporary: bool = False,
    action: Action = Action.FAILED,
) -> RecipientStatus:
    """One recipient whose mail was not taken, by the reply that the service had or the words that it has for it.

    ``temporary``: the service does not take it for final, whatever the status says; the milder word counts.
    """
    words = squeeze(said.replace("\0", " ")) if isinstance(said, str) else ""
    given = find_status(word(status)) or find_status(words)
    if temporary:
        given = f"4{given[1:]}" if given else "4.0.0"
    told = code if isinstance(code, int) and 200 <= code < 600 else None
    return RecipientStatus(
        address=address(whom),
        action=action,
        status=given,
        reply_code=told or find_reply_code(words),
        diagnostic=words,
        phase=find_phase(words),
    )


def delivered(whom: object) -> RecipientStatus:
    return RecipientStatus(address=address(whom), action=Action.DELIVERED, status="2.0.0")


def tag_of(values: object) -> str:
    """The tag among what we had the service note; some give a list of one."""
    found = values.get(TAG) if isinstance(values, Mapping) else None
    return word(found[0] if isinstance(found, list) and found else found)
