"""Makes events of what a caller gives, with checked values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from postroad.campaign.event_file import EventError, event_fields, event_key, event_name
from postroad.campaign.intake import encode_json
from postroad.errors import DataError
from postroad.mail.address import normalise_address
from postroad.store.recipient_event import NewEvent


@dataclass(frozen=True, kw_only=True)
class GivenEvent:
    """An event as a caller gives it. ``at`` None: now. ``key`` empty: see `new_event`."""

    address: str
    name: str
    at: datetime | None = None
    key: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def new_event(given: GivenEvent, now: datetime) -> NewEvent:
    """Return an event to record.

    An event with a time and without a key gets one from its content, so that a repetition records it once. An event
    with neither is recorded each time.

    Args:
        given: The event.
        now: The time.

    Returns:
        The event.

    Raises:
        EventError: A value is not valid.
    """
    try:
        address = normalise_address(given.address)
    except DataError as error:
        raise EventError("address", given.address, error.message) from None
    name, fields, key = event_name(given.name), event_fields(given.fields), event_key(given.key)
    if key is None and given.at is not None:
        content = encode_json([address, name, given.at.isoformat(), fields])
        key = f"content:{hashlib.sha256(content).hexdigest()}"
    return NewEvent(address, name, given.at or now, fields, key)
