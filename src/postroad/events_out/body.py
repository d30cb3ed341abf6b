"""The published form of an event: the body of a webhook, and a line of an NDJSON file. See docs/reference/events.md."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from postroad.errors import Blame
from postroad.event_types import EventType
from postroad.store.event_stream import PublishedEvent

VERSION: Final = 1
"""Version of the body. Fields may be added within a version; none is removed or changes its meaning."""

TEST_TYPE: Final = "postroad.test"
"""Type of the event of `postroad webhook send-test`."""


class EventData(Struct, frozen=True, kw_only=True):
    """What an event is about. A field that is not known is null.

    ``touch``: number of the message. ``attempt``: number of the attempt, 0 if the event is no attempt. ``blame``: the
    party at fault. ``next_at``: time of the next attempt.
    """

    touch: int
    campaign: str
    step: str
    sender: str
    recipient: str
    provider: str | None
    attempt: int
    reply_code: int | None
    enhanced_code: str | None
    reply: str | None
    cause: str | None
    blame: Blame | None
    next_at: datetime | None


class EventBody(Struct, frozen=True, kw_only=True):
    """One event. ``timestamp``: when it happened."""

    id: str
    type: EventType
    version: int
    timestamp: datetime
    data: EventData


class WebhookTest(Struct, frozen=True, kw_only=True):
    """The body that `postroad webhook send-test` sends."""

    id: str
    type: str
    version: int
    timestamp: datetime
    data: dict[str, str]


encode_body = msgspec.json.Encoder().encode
"""Encode a body as JSON in UTF-8."""


def body_of(event: PublishedEvent) -> EventBody:
    """Return the published form of an event."""
    return EventBody(
        id=event.message_id,
        type=event.type,
        version=VERSION,
        timestamp=event.at,
        data=EventData(
            touch=event.touch,
            campaign=event.campaign,
            step=event.step,
            sender=event.sender,
            recipient=event.recipient,
            provider=event.provider,
            attempt=event.attempt,
            reply_code=event.reply_code,
            enhanced_code=event.enhanced_code,
            reply=event.reply,
            cause=event.cause,
            blame=None if event.blame is None else Blame(event.blame),
            next_at=event.next_at,
        ),
    )


def test_body(message_id: str, endpoint: str, now: datetime) -> WebhookTest:
    """Return the body of a test event."""
    return WebhookTest(id=message_id, type=TEST_TYPE, version=VERSION, timestamp=now, data={"endpoint": endpoint})
