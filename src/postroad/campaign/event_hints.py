"""Hints about an event that was recorded: it is in the future, or no campaign names it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from postroad.errors import did_you_mean, near_names
from postroad.store.campaign import Campaign, CampaignState, Step
from postroad.store.engine import read
from postroad.store.recipient_event import NewEvent

_NOT_OVER = (CampaignState.DRAFT, CampaignState.RUNNING, CampaignState.PAUSED)


def event_hints(engine: sa.Engine, event: NewEvent, now: datetime) -> list[str]:
    """Return hints about an event.

    Args:
        engine: The database of the campaigns.
        event: The event.
        now: The time.

    Returns:
        Sentences; none if there is nothing to say.
    """
    hints = []
    if event.at > now:
        hints.append(
            f"The event is at {event.at:%Y-%m-%d %H:%M:%S} UTC, in the future: conditions see it from then on."
        )
    with read(engine) as connection:
        awaited = awaited_events(connection)
    if awaited and event.name not in awaited:
        near = did_you_mean(near_names(event.name, awaited))
        named = f"Campaigns wait for: {', '.join(sorted(awaited))}."
        hints.append(f"No campaign that is not over names the event {event.name}. {near or named}")
    return hints


def awaited_events(connection: sa.Connection) -> set[str]:
    """Return the names of the events that the conditions and entries of campaigns name which are not over."""
    campaigns = sa.select(col(Campaign.id), col(Campaign.journey), col(Campaign.segment))
    found: set[str] = set()
    ids = []
    for row in connection.execute(campaigns.where(col(Campaign.state).in_(_NOT_OVER))):
        ids.append(row.id)
        found |= {*_events(row.journey), *_events(row.segment)}
    steps = sa.select(col(Step.settings)).where(col(Step.campaign_id).in_(ids), col(Step.kind) == "if")
    for settings in connection.execute(steps).scalars():
        found |= set(_events(settings))
    return found


def _events(value: Any) -> Iterator[str]:
    """Yield the names of the events in the JSON of a condition."""
    if isinstance(value, dict):
        if value.get("function") == "event" and isinstance(value.get("name"), str):
            yield value["name"]
        for part in value.values():
            yield from _events(part)
    elif isinstance(value, list):
        for part in value:
            yield from _events(part)
