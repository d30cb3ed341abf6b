"""Rollouts: a launch withholds the audience, draws it into shares, and lets go the first one.

The draw is stratified: every share has the same mix of mailbox providers and list sources as the audience, as far as
whole people allow. It is a pure function of the frozen audience, so a launch that was interrupted draws the same.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Self

import sqlalchemy as sa

from postroad.campaign.due_times import DueTimes
from postroad.campaign.rollout_field import ALL
from postroad.campaign.sequence import EmailPlan
from postroad.dns.providers import provider_of
from postroad.store.campaign import Campaign, CampaignState, find_campaign
from postroad.store.cohort import cohort_keys
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.rollout import RolloutShare, drawable_touches, shares_of, withheld_touches
from postroad.store.touches.withholding import DrawnTouch, ReleasedTouch, draw_shares, release

_WORD: Final = (1 << 64) - 1
DRAW_STEP: Final = 500
"""Touches that one transaction draws."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The rollout of a stored campaign. ``shares``: cumulative, in hundredths of a percent."""

    shares: tuple[int, ...]
    after: timedelta

    @classmethod
    def of(cls, campaign: Campaign) -> Self | None:
        """Return the rollout of a campaign. None: it has none."""
        if campaign.rollout is None:
            return None
        return cls(
            shares=tuple(campaign.rollout["shares"]),
            after=timedelta(milliseconds=campaign.rollout["after_ms"] or 0),
        )

    @property
    def last(self) -> int:
        """The number of the last share, with which touches are withheld until they are drawn."""
        return len(self.shares)


class Stratum(NamedTuple):
    """The recipients of one list source at one mailbox provider."""

    source: str
    provider: str


def share_totals(people: int, shares: Sequence[int]) -> list[int]:
    """Return how many of so many people are in each share with all shares before it. A share is rounded up."""
    return [-(-people * points // ALL) for points in shares]


def draw(strata: Mapping[Stratum, Sequence[int]], shares: Sequence[int], seed: int) -> dict[int, int]:
    """Draw recipients into shares, proportionally from every stratum.

    Each share has exactly its total. A seat goes to the stratum that is furthest below its proportion, so every stratum
    has its proportion up to one person, and rarely two. Within a stratum the order is that of a hash, so that the
    oldest recipients are not always the first.

    Args:
        strata: The ids of the recipients of each stratum.
        shares: Cumulative shares, in hundredths of a percent, in ascending order; the last one is all.
        seed: Makes the order differ from campaign to campaign.

    Returns:
        The number of the share of each recipient, from 1.
    """
    names = sorted(strata)
    ordered = [sorted(strata[name], key=lambda id_: (_mix(id_, seed), id_)) for name in names]
    sizes = [len(members) for members in ordered]
    drawn: dict[int, int] = {}
    taken = [0] * len(names)
    for number, total in enumerate(share_totals(sum(sizes), shares), start=1):
        before = list(taken)
        _fill(taken, sizes, shares[number - 1], total - sum(taken))
        for members, first, end in zip(ordered, before, taken, strict=True):
            drawn |= dict.fromkeys(members[first:end], number)
    return drawn


def _fill(taken: list[int], sizes: Sequence[int], points: int, seats: int) -> None:
    """Give out the seats of a share: one at a time to the stratum with the largest deficit."""
    # Deficits in units of 1/ALL people, so that they are exact. The smallest of the heap is the largest deficit.
    deficits = [(taken[place] * ALL - sizes[place] * points, place) for place in range(len(sizes))]
    heap = [deficit for deficit in deficits if taken[deficit[1]] < sizes[deficit[1]]]
    heapq.heapify(heap)
    for _ in range(seats):
        deficit, place = heap[0]
        taken[place] += 1
        if taken[place] < sizes[place]:
            heapq.heapreplace(heap, (deficit + ALL, place))
        else:
            heapq.heappop(heap)


def _mix(recipient_id: int, seed: int) -> int:
    """Return a 64-bit hash of a recipient (splitmix64)."""
    word = (recipient_id * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


def draw_audience(
    engine: sa.Engine, campaign: Campaign, rollout: Rollout, step_id: int, source_field: str
) -> list[RolloutShare]:
    """Draw the withheld touches of a frozen audience into shares, in bounded steps. Idempotent.

    Args:
        engine: The ledger.
        campaign: The campaign, whose launch is not finished.
        rollout: Its rollout.
        step_id: Its first email.
        source_field: Merge field that names the list source of a recipient.

    Returns:
        The shares with their sizes, to be stored when the launch is finished. Suppressed recipients are in no share.
    """
    assert campaign.id is not None  # noqa: S101  (read from its table)
    strata, touches = _read_strata(engine, campaign.id, step_id, source_field)
    drawn = draw(strata, rollout.shares, campaign.id)
    changed = [(touch_id, drawn[id_]) for id_, (touch_id, share) in touches.items() if share != drawn[id_]]
    for start in range(0, len(changed), DRAW_STEP):
        step = [DrawnTouch(*each) for each in changed[start : start + DRAW_STEP]]
        with write(engine) as connection:
            current = find_campaign(connection, campaign.name, for_update=True)
            if current.state is not CampaignState.DRAFT:
                break  # A concurrent launch has finished, or it was cancelled.
            draw_shares(connection, step)
    people = [0] * rollout.last
    for share in drawn.values():
        people[share - 1] += 1
    return [
        RolloutShare(campaign_id=campaign.id, number=number, basis_points=points, people=people[number - 1])
        for number, points in enumerate(rollout.shares, start=1)
    ]


def _read_strata(
    engine: sa.Engine, campaign_id: int, step_id: int, source_field: str
) -> tuple[dict[Stratum, list[int]], dict[int, tuple[int, int | None]]]:
    """Return the recipients of each stratum, and the touch and the share of each recipient."""
    strata: defaultdict[Stratum, list[int]] = defaultdict(list)
    # Plain tuples: the garbage collector does not look through a million of them while a transaction is open.
    touches: dict[int, tuple[int, int | None]] = {}
    after = 0
    while True:
        with read(engine) as connection:
            page = drawable_touches(connection, campaign_id, step_id, after)
            withheld = {one.touch_id: one for one in page if one.state == TouchState.WITHHELD}
            keys = cohort_keys(connection, list(withheld), source_field=source_field) if withheld else []
        if not page:
            return strata, touches
        after = page[-1].recipient_id
        for key in keys:
            one = withheld[key.touch_id]
            strata[Stratum(key.source, provider_of(key.domain, key.provider))].append(one.recipient_id)
            touches[one.recipient_id] = (one.touch_id, one.share)


def release_open_shares(engine: sa.Engine, campaign: Campaign, email: EmailPlan) -> int:
    """Plan the touches of the shares that were let go, in bounded steps. Idempotent.

    A message is due as if the campaign was launched when its share was let go: in the recipient's time zone, within the
    campaign's hours.

    Args:
        engine: The ledger.
        campaign: A running campaign with a rollout.
        email: Its first email.

    Returns:
        The number of released touches.
    """
    assert campaign.id is not None  # noqa: S101  (read from its table)
    with read(engine) as connection:
        opened = {share.number: share.opened_at for share in shares_of(connection, campaign.id)}
    times = {number: at for number, at in opened.items() if at is not None}
    if not times:
        return 0
    due, released = DueTimes(email, campaign), 0
    while True:
        with read(engine) as connection:
            page = withheld_touches(connection, campaign.id, max(times))
        if not page:
            return released
        touches = [ReleasedTouch(touch.touch_id, due.after(times[touch.share], touch)) for touch in page]
        with write(engine) as connection:
            if find_campaign(connection, campaign.name, for_update=True).state is not CampaignState.RUNNING:
                return released
            released += release(connection, touches)


def next_share(shares: Sequence[RolloutShare]) -> RolloutShare | None:
    """Return the first share that was not let go. None: all were."""
    return next((share for share in shares if share.opened_at is None), None)


def opened_at(shares: Sequence[RolloutShare]) -> datetime | None:
    """Return when the last share was let go."""
    return max((share.opened_at for share in shares if share.opened_at is not None), default=None)
