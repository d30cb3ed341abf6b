"""What is known of a touch, and one thing that holds it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from msgspec import Struct

from postroad.explain.cause import CAUSES, DelayCause
from postroad.explain.facts import TouchFacts
from postroad.queue import JobDetails
from postroad.store.touch_lookup import FoundTouch


class Situation(NamedTuple):
    """What is known of a touch at ``now``.

    ``job``: its job; None: the queue cannot be reached. ``not_before_ms``: earliest time of a claim, from the queue.
    ``worker_alive``: whether a worker of its queue is alive; None: not known.
    """

    touch: FoundTouch
    facts: TouchFacts
    now: datetime
    queue: str
    job: JobDetails | None = None
    not_before_ms: int | None = None
    worker_alive: bool | None = None


class TouchHold(Struct, frozen=True, kw_only=True):
    """One cause that holds a touch now.

    ``since``: its begin, if known. ``until``: its end; None: not known, or until a person acts. ``words``: a sentence.
    ``remedy``: what ends it; empty: it ends by itself. ``detail``: what caused it, as a sentence. ``rule``, ``reply``:
    the rule that paused a gate, and the receiver's reply that it matched.
    """

    cause: DelayCause
    words: str
    since: datetime | None = None
    until: datetime | None = None
    gate: str | None = None
    detail: str = ""
    rule: str | None = None
    reply: str | None = None
    remedy: str = ""


def new_hold(
    situation: Situation,
    cause: DelayCause,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    **fields: object,
) -> TouchHold:
    """Return a hold with the sentence of its cause. ``fields``: what the sentence names in addition to the touch."""
    touch = situation.touch
    known = {
        "address": touch.address,
        "campaign": touch.campaign,
        "queue": situation.queue,
        "sender": touch.sender,
        "since": utc(since),
        "state": touch.state,
        "step": touch.step,
        "touch": touch.id,
        "until": utc(until),
    }
    text, values = CAUSES[cause], {**known, **fields}
    return TouchHold(
        cause=cause,
        words=text.sentence.format(**values),
        since=since,
        until=until,
        remedy=text.remedy.format(**values),
    )


def utc(at: datetime | None) -> str:
    """Return a time in UTC, in words."""
    return "an unknown time" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def from_ms(ms: int | None) -> datetime:
    """Return the time of a number of milliseconds since the epoch."""
    return datetime.fromtimestamp((ms or 0) / 1000, UTC)
