"""The types of the events that Postroad publishes, by webhook and as files. `docs/reference/events.md` lists them."""

from __future__ import annotations

from enum import StrEnum


class EventType(StrEnum):
    """Type of a published event. ``message``: what became of a message. ``recipient``: what its recipient did."""

    ACCEPTED = "message.accepted"
    DEFERRED = "message.deferred"
    BOUNCED = "message.bounced"
    FAILED = "message.failed"
    EXPIRED = "message.expired"
    SUPPRESSED = "message.suppressed"
    CANCELLED = "message.cancelled"
    SKIPPED = "message.skipped"
    UNKNOWN = "message.unknown"
    COMPLAINED = "recipient.complained"
    UNSUBSCRIBED = "recipient.unsubscribed"
    REPLIED = "recipient.replied"


FREQUENT = frozenset({EventType.DEFERRED})
"""Types that an endpoint gets only if its settings name them."""

DEFAULT_EVENTS = tuple(event for event in EventType if event not in FREQUENT)
"""Types that an endpoint gets if its settings name none."""
