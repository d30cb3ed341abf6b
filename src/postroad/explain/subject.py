"""Finds whom or what the argument of `postroad explain` names: an address, a Message-ID or a touch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_lowercase, digits
from typing import NamedTuple

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.delivery.job import parse_touch_id
from postroad.errors import StateError, UsageError, did_you_mean
from postroad.mail.token import Purpose
from postroad.store.person_history import known_addresses, recipient_of_past_touch
from postroad.store.touch_lookup import touch_by_id
from postroad.touch_search import is_address, normalised

MAX_SUBJECT = 1_000
"""Characters of an argument."""
_MESSAGE_ID = re.compile(r"<?([0-9a-f]{1,16}-[0-9a-f]{20})@[^@\s]*", re.ASCII | re.IGNORECASE)
_IN_A_DOMAIN = f"{ascii_lowercase}{digits}-."


class Subject(NamedTuple):
    """A person, or one message to a person. ``touch_id`` None: all messages."""

    address: str
    touch_id: int | None = None


def parse_subject(connection: sa.Connection, context: AppContext, text: str) -> Subject:
    """Return whom or what an argument names.

    Args:
        connection: A connection in a transaction.
        context: The application.
        text: An address, a Message-ID of a message of ours, with or without angle brackets, or the id of a touch.

    Returns:
        The person, whether known or not, and the message, if one is named.

    Raises:
        UsageError: The text names no person or message, or no key of this installation signed the Message-ID.
        StateError: The ledger has no such message.
    """
    text = text.strip()
    if len(text) > MAX_SUBJECT:
        raise UsageError(f"the argument has {len(text):,} characters, and at most {MAX_SUBJECT:,} are allowed")
    if found := _MESSAGE_ID.fullmatch(text.removesuffix(">")):
        touch_id = context.signer.read(Purpose.MESSAGE_ID, found[1])
        if touch_id is not None:
            return _message(connection, touch_id)
        raise UsageError(
            f"{text!r} is not a Message-ID that this installation signed",
            remedy="Copy the Message-ID header of one of your messages, or give the recipient's address. A key that "
            "was removed from POSTROAD_SECRET_KEYS no longer verifies its messages.",
        )
    if is_address(text):
        return Subject(normalised(text.removeprefix("<").removesuffix(">")))
    return _message(connection, parse_touch_id(text))


def _message(connection: sa.Connection, touch_id: int) -> Subject:
    touch = touch_by_id(connection, touch_id)
    if touch is not None:
        return Subject(touch.address, touch_id)
    past = recipient_of_past_touch(connection, touch_id)
    if past is None:
        raise StateError(
            f"there is no message with the id {touch_id}",
            remedy="`postroad explain ADDRESS` lists the messages to a person, with their ids.",
        )
    address, campaign = past
    which = f" of campaign {campaign.name}" if campaign else ""
    raise StateError(
        f"message {touch_id}{which} to {address} was deleted after its retention",
        remedy=f"`postroad explain {address}` shows what is kept of the person.",
    )


def unknown_address(connection: sa.Connection, address: str) -> StateError:
    """Return the error for an address that is no recipient and has no suppression.

    Other people's addresses are never listed. The exception is the same local part at a domain that differs by one
    character, which is most likely a typing error.
    """
    hints = [did_you_mean(known_addresses(connection, list(_similar(address)))[:3])]
    hints.append(
        "It is in no audience and has no suppression. It was never imported, or its row was refused: "
        "`postroad audience refusals AUDIENCE` lists refused rows."
    )
    return StateError(f"there is no recipient {address}", remedy=" ".join(filter(None, hints)))


def _similar(address: str) -> Iterator[str]:
    """Yield the address with every domain that differs by one character, or by two neighbours that are swapped."""
    local, _, domain = address.rpartition("@")
    found = set()
    for place in range(len(domain) + 1):
        head, tail = domain[:place], domain[place:]
        if tail:
            found.add(head + tail[1:])
            found.update(head + char + tail[1:] for char in _IN_A_DOMAIN)
        if len(tail) > 1:
            found.add(head + tail[1] + tail[0] + tail[2:])
        found.update(head + char + tail for char in _IN_A_DOMAIN)
    for similar in sorted(found - {domain}):
        yield f"{local}@{similar}"
