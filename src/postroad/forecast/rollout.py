"""The shares of a rollout in a forecast: each follows when the messages before it are sent and its wait is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import sqlalchemy as sa

from postroad.campaign.rollout import Rollout, next_share
from postroad.campaign.rollout_field import ALL
from postroad.forecast.demand import RecipientGroup, utc
from postroad.forecast.frequency import ForecastCap
from postroad.forecast.simulate import STEP_S, Arrival, SimulatedRun
from postroad.store.campaign import Campaign
from postroad.store.ledger import TouchState
from postroad.store.rollout import shares_of

ROLLOUT_NOTE = (
    "The forecast lets each share of the rollout go as soon as the messages before it are sent and `after` is over. "
    "The test of their outcomes may hold it longer."
)

Groups = Sequence[tuple[RecipientGroup, float]]


class CampaignShares(NamedTuple):
    """What a rollout withholds: the recipients of each share that is not let go, in order, and what holds the next.

    ``after_s``: time between two shares. ``last_s``: when the last share was let go, in seconds since the epoch.
    """

    withheld: Sequence[Groups]
    after_s: float
    last_s: float
    notes: tuple[str, ...]


NO_SHARES = CampaignShares((), 0.0, 0.0, ())


def shares_of_draft(rollout: Rollout, groups: Iterable[tuple[RecipientGroup, int]], now: datetime) -> CampaignShares:
    """Split the recipients of a draft into shares, as the draw does. The first one is let go at once."""
    known = list(groups)
    parts = [(later - earlier) / ALL for earlier, later in pairwise((0, *rollout.shares))]
    split = [[(group, number * part) for group, number in known] for part in parts]
    return CampaignShares(split, rollout.after.total_seconds(), now.timestamp(), (ROLLOUT_NOTE,))


def shares_of_running(
    connection: sa.Connection, campaign: Campaign, now: datetime, cap: ForecastCap | None = None
) -> CampaignShares:
    """Read the shares of a launched campaign that are withheld. They are grouped in one pass over its first email.

    Args:
        connection: A connection in a transaction.
        campaign: The campaign.
        now: The time.
        cap: The frequency cap of the campaign. None: no cap holds its messages.

    Returns:
        The shares; `NO_SHARES` if nothing is withheld.
    """
    rollout = Rollout.of(campaign)
    if rollout is None:
        return NO_SHARES
    held_until = cap.held_until(connection, "touch.recipient_id") if cap is not None else "0"
    statement = sa.text(
        "SELECT touch.share, recipient.domain, mail_domain.provider, mail_domain.site, recipient.time_zone, "
        f"{held_until} AS held, count(*) "
        "FROM touch JOIN recipient ON recipient.id = touch.recipient_id "
        "LEFT JOIN mail_domain ON mail_domain.domain = recipient.domain "
        f"WHERE touch.campaign_id = :id AND touch.state = '{TouchState.WITHHELD}' "
        "GROUP BY touch.share, recipient.domain, mail_domain.provider, mail_domain.site, recipient.time_zone, held"
    )
    by_share: dict[int, list[tuple[RecipientGroup, float]]] = {}
    for share, domain, provider, site, zone, until, number in connection.execute(statement, {"id": campaign.id}):
        group = RecipientGroup(domain, provider, site, zone, float(until))
        by_share.setdefault(share, []).append((group, float(number)))
    if not by_share:
        return NO_SHARES
    shares = shares_of(connection, campaign.id or 0)
    coming = next_share(shares)
    opened = [share.opened_at for share in shares if share.opened_at is not None]
    last = max(opened, default=now)
    held = coming is not None and coming.held_why is not None and coming.held_because not in ("time", "outcomes")
    hold = (f"Share {coming.number} is not let go now: {coming.held_why}.",) if held and coming is not None else ()
    ordered = [by_share[number] for number in sorted(by_share)]
    return CampaignShares(ordered, rollout.after.total_seconds(), last.timestamp(), (ROLLOUT_NOTE, *hold))


def follow_shares(
    shares: CampaignShares,
    arrivals: Sequence[Arrival],
    first_step: int,
    simulate: Callable[[Sequence[Arrival]], SimulatedRun],
    arrive: Callable[[Groups, datetime], Sequence[Arrival]],
    now: datetime,
) -> list[Arrival]:
    """Add the messages of each withheld share, due when the messages of the first email before it are sent.

    Args:
        shares: What is withheld.
        arrivals: The messages that are let go.
        first_step: The first email.
        simulate: Runs the simulation.
        arrive: Returns the first messages of recipients, due from a time on.
        now: The time.

    Returns:
        All messages. If the messages before a share do not end, it is left out.
    """
    known, last_s = list(arrivals), shares.last_s
    for place, groups in enumerate(shares.withheld):
        run = simulate(known) if place or known else None
        sent_s = run.steps[first_step][1] if run is not None and first_step in run.steps else now.timestamp()
        if run is not None and run.ended is None:
            break
        at_s = max(sent_s, last_s + shares.after_s, now.timestamp())
        last_s = ceil(at_s / STEP_S) * STEP_S
        known += arrive(groups, utc(last_s))
    return known
