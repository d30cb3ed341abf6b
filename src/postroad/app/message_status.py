"""What became of one message: its state, its request and what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from postroad.app.context import AppContext
from postroad.mail.address import ascii_address, domain_of
from postroad.mail.token import Purpose
from postroad.store.engine import read
from postroad.store.message_request import RequestOfTouch, requests_of_touches
from postroad.store.touch_history import TouchEventRow, events_of_touches
from postroad.store.touch_lookup import FoundTouch, touch_by_id

MAX_EVENTS: Final = 100


@dataclass(frozen=True, kw_only=True)
class MessageStatus:
    """One message. ``events``: the newest ones first. ``request`` None: its campaign planned it."""

    touch: FoundTouch
    request: RequestOfTouch | None
    events: Sequence[TouchEventRow]
    message_id: str


def message_status(context: AppContext, touch_id: int) -> MessageStatus | None:
    """Return what became of a message; None if the ledger does not have it.

    Args:
        context: The open parts.
        touch_id: Id of the touch.

    Returns:
        The message.

    Raises:
        UnavailableError: The database does not answer.
    """
    with read(context.engine) as connection:
        touch = touch_by_id(connection, touch_id)
        if touch is None:
            return None
        request = requests_of_touches(connection, [touch_id]).get(touch_id)
        events = events_of_touches(connection, [touch_id])
    token = context.signer.sign(Purpose.MESSAGE_ID, touch_id)
    return MessageStatus(
        touch=touch,
        request=request,
        events=list(reversed(events))[:MAX_EVENTS],
        message_id=f"<{token}@{domain_of(ascii_address(touch.sender))}>",
    )
