"""Checks that running campaigns are advanced, and that their frequency classes exist."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import col

from postroad.campaign.frequency import require_class
from postroad.doctor.check import Check, failed
from postroad.doctor.context import DoctorContext
from postroad.errors import ConfigError
from postroad.printable import counted
from postroad.queue import Health
from postroad.store.campaign import Campaign, CampaignState
from postroad.store.engine import read
from postroad.store.heartbeat import ADVANCE, last_heartbeat

STALE = timedelta(minutes=15)
"""Age from which the last pass over running campaigns fails the check. There is a pass every five minutes."""

REMEDY = "Does Prefect run the flow advance-campaigns? `postroad advance` makes a pass without it."


async def check_advance(context: DoctorContext) -> Sequence[Check]:
    """Check the age of the last pass over running campaigns. Without a running campaign the check passes."""
    engine = await context.database()
    running, launched_at, last = await asyncio.to_thread(_read, engine)
    if not running:
        return [Check(part="advance", health=Health.OK, seen="no campaign is running")]
    now = (await context.app()).clock.now()
    seen = f"{counted(running, 'campaign is', 'campaigns are')} running; "
    seen += "there was no pass yet" if last is None else f"the last pass is {_age(now - last)} old"
    # A campaign that was just launched need not have been advanced yet.
    since = max((at for at in (last, launched_at) if at is not None), default=None)
    if since is None or now - since > STALE:
        return [Check(part="advance", health=Health.FAIL, seen=seen, remedy=REMEDY)]
    return [Check(part="advance", health=Health.OK, seen=seen)]


async def check_frequency(context: DoctorContext) -> Sequence[Check]:
    """Check that the settings have the frequency class of every campaign that is not over."""
    engine = await context.database()
    classes = await asyncio.to_thread(_frequency_classes, engine)
    checks = []
    for name, campaigns in sorted(classes.items()):
        try:
            require_class(name, context.settings.frequency, where=f"campaign {', '.join(campaigns)}")
        except ConfigError as error:
            checks.append(failed("frequency", error))
    return checks


def _frequency_classes(engine: sa.Engine) -> dict[str, list[str]]:
    """Return the campaigns that are not over, by the class that they name."""
    over = (CampaignState.FINISHED, CampaignState.CANCELLED)
    statement = sa.select(col(Campaign.frequency), col(Campaign.name)).where(
        col(Campaign.frequency).is_not(None), col(Campaign.state).not_in(over)
    )
    classes: defaultdict[str, list[str]] = defaultdict(list)
    with read(engine) as connection:
        for name, campaign in connection.execute(statement.order_by(col(Campaign.name))):
            classes[name].append(campaign)
    return classes


def _read(engine: sa.Engine) -> tuple[int, datetime | None, datetime | None]:
    """Return the number of running campaigns, the time of the first launch, and the time of the last pass."""
    statement = sa.select(sa.func.count(), sa.func.min(col(Campaign.launched_at))).where(
        col(Campaign.state) == CampaignState.RUNNING
    )
    with read(engine) as connection:
        running, launched_at = connection.execute(statement).one()
        return running, launched_at, last_heartbeat(connection, ADVANCE)


def _age(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60:,} min"
