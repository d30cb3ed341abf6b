"""What one pass over a journey works with, and the check that every transaction of it begins with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.journey import Journey
from postroad.store.campaign import CampaignState, find_campaign, lock_campaign, steps_of
from postroad.store.ending import HashOf
from postroad.store.engine import read


@dataclass(frozen=True, kw_only=True)
class PassContext:
    """One pass over a campaign.

    ``states``: states of the campaign in which the pass may write. ``revision``: that of the steps that it read.
    ``hash_of``: hashes an address, to find hashed suppressions. ``share``: the share of a rollout that planned emails
    are withheld with; None: they are not.
    """

    engine: sa.Engine
    name: str
    journey: Journey
    now: datetime
    revision: int = 0
    hash_of: HashOf | None = None
    states: tuple[CampaignState, ...] = (CampaignState.RUNNING,)
    share: int | None = None


def open_pass(
    engine: sa.Engine,
    name: str,
    now: datetime,
    hash_of: HashOf | None = None,
    calendar: HolidayCalendar | None = None,
) -> PassContext:
    """Return the context of a pass over a journey. Raise StateError if no campaign has that name."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None  # noqa: S101  (read from its table)
        journey = Journey(campaign, steps_of(connection, campaign.id), calendar)
        revision = campaign.revision
    return PassContext(engine=engine, name=name, journey=journey, now=now, revision=revision, hash_of=hash_of)


def may_write(connection: sa.Connection, context: PassContext) -> bool:
    """Lock the campaign, and return whether a pass may write: it runs, and its steps are those that the pass read."""
    state, revision = lock_campaign(connection, context.journey.campaign_id)
    return state in context.states and revision == context.revision
