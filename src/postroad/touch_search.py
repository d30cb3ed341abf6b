"""Finds touches by the arguments of commands: ids and addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from postroad.app.context import AppContext
from postroad.delivery.job import SEND_QUEUE, WARMUP_QUEUE, job_id, parse_touch_id
from postroad.errors import DataError, StateError, UsageError
from postroad.mail.address import normalise_address
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.touch_lookup import MAX_TOUCHES, FoundTouch, touch_by_id, touches_of_address


def normalised(text: str) -> str:
    """Return the normalised address. Raise UsageError if it is not valid."""
    try:
        return normalise_address(text)
    except DataError as error:
        raise UsageError(f"{text!r} is not a valid address: {error.message}") from None


def is_address(text: str) -> bool:
    """Return whether an argument is an address and not an id."""
    return "@" in text


async def touch_ids(
    context: AppContext, words: Sequence[str], queue: str, states: Sequence[TouchState] = tuple(TouchState)
) -> list[str]:
    """Return the ids of touches that the arguments name.

    Args:
        context: The application.
        words: Ids of touches, and addresses, which stand for their touches.
        queue: Name of the queue. Touches of addresses that use another queue are ignored.
        states: States of the touches of an address.

    Returns:
        The ids without duplicates.

    Raises:
        UsageError: An argument is neither an id nor an address.
        StateError: An address has no such touch.
    """
    ids: list[str] = []
    for word in words:
        if not is_address(word):
            ids.append(word)
            continue
        touches = await find_touches(context, word, states=states)
        touches = [touch for touch in touches if queue_of_touch(touch) == queue]
        if not touches:
            allowed = "" if len(states) == len(TouchState) else f" that is {' or '.join(states)}"
            raise StateError(
                f"{word} has no message{allowed} on {queue}",
                remedy=f"`postroad queue explain {word}` shows its messages.",
            )
        ids += [job_id(touch.id) for touch in touches]
    return list(dict.fromkeys(ids))


def queue_of_touch(touch: FoundTouch) -> str:
    """Return the name of the queue that sends a touch."""
    return WARMUP_QUEUE if touch.warmup else SEND_QUEUE


async def find_touches(
    context: AppContext, word: str, *, states: Sequence[TouchState] = tuple(TouchState), limit: int = MAX_TOUCHES
) -> list[FoundTouch]:
    """Return the touch with an id, or the touches of an address, the newest first. Raise UsageError for other text."""

    def look() -> list[FoundTouch]:
        with read(context.engine) as connection:
            if is_address(word):
                return touches_of_address(connection, normalised(word), states=states, limit=limit)
            touch = touch_by_id(connection, parse_touch_id(word))
            return [] if touch is None else [touch]

    return await asyncio.to_thread(look)
