"""Charges the hours from due to accepted to causes, for a whole campaign: exactly, or by a sample of a large one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from math import ceil

import sqlalchemy as sa
from msgspec import Struct

from postroad.app.context import AppContext
from postroad.explain.cause import DelayCause
from postroad.explain.charge import Charge, to_charges, total_ms
from postroad.explain.intervals import delay_of, load_pasts
from postroad.store.campaign import StepKind, find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.ledger import LIVE, TouchState
from postroad.store.touch_count import counts_by_step
from postroad.store.touch_history import recipient_range
from postroad.store.touch_lookup import touches_by_ids
from postroad.store.touch_page import touch_page

SAMPLE = 10_000
"""Touches of a campaign that are read, at most. A larger campaign is sampled."""
CHUNK = 500
"""Touches that one transaction reads."""


class DelaySum(Struct, frozen=True, kw_only=True):
    """The delays of some touches. ``total_ms``: the sum of ``delays``. Percentiles are of single touches."""

    touches: int
    total_ms: int
    median_ms: int
    p95_ms: int
    longest_ms: int
    delays: list[Charge]


class CampaignDelays(Struct, frozen=True, kw_only=True):
    """Where the time of a campaign went.

    ``touches``: its touches. ``read``: how many of them were read; if fewer, they are a sample, spread evenly over the
    recipients. ``accepted``: from due to accepted. ``waiting``: from due until now, of those that are due and wait.
    """

    campaign: str
    touches: int
    read: int
    sampled: bool
    accepted: DelaySum
    waiting: DelaySum


class _Sum:
    """Adds up delays."""

    def __init__(self) -> None:
        self._totals: Counter[tuple[DelayCause, str]] = Counter()
        self._each: list[int] = []

    def add(self, delays: Sequence[Charge]) -> None:
        self._each.append(total_ms(delays))
        for one in delays:
            self._totals[one.cause, one.detail] += one.ms

    def result(self) -> DelaySum:
        each = sorted(self._each)
        return DelaySum(
            touches=len(each),
            total_ms=sum(each),
            median_ms=_percentile(each, 0.5),
            p95_ms=_percentile(each, 0.95),
            longest_ms=_percentile(each, 1.0),
            delays=to_charges(self._totals),
        )


def _percentile(ordered: Sequence[int], share: float) -> int:
    return ordered[max(ceil(len(ordered) * share) - 1, 0)] if ordered else 0


async def campaign_delays(
    context: AppContext, name: str, *, progress: Callable[[int, int], None] | None = None
) -> CampaignDelays:
    """Return where the time of a campaign's touches went, from the ledger.

    Args:
        context: The application.
        name: Name of the campaign.
        progress: Gets the number of touches that were read, and of those to read.

    Returns:
        The sums. They are exact if all touches were read, and exact for the sample otherwise.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database is unreachable.
    """
    return await asyncio.to_thread(_campaign_delays, context, name, progress or (lambda _done, _total: None))


def _campaign_delays(context: AppContext, name: str, progress: Callable[[int, int], None]) -> CampaignDelays:
    now = context.clock.now()
    with read(context.engine) as connection:
        campaign_id = find_campaign(connection, name).id or 0
        steps = [step.id for step in steps_of(connection, campaign_id) if step.kind is StepKind.EMAIL and step.id]
        counts = {step: sum(states.values()) for step, states in counts_by_step(connection, campaign_id).items()}
    total = sum(counts.values())
    accepted, waiting, done = _Sum(), _Sum(), 0
    for step in steps:
        share = counts.get(step, 0) if total <= SAMPLE else ceil(SAMPLE * counts.get(step, 0) / total)
        for ids in _chosen(context.engine, campaign_id, step, share, whole=total <= SAMPLE):
            with read(context.engine) as connection:
                _add(connection, context, ids, now, accepted, waiting)
            done += len(ids)
            progress(done, min(total, SAMPLE))
    return CampaignDelays(
        campaign=name,
        touches=total,
        read=done,
        sampled=total > SAMPLE,
        accepted=accepted.result(),
        waiting=waiting.result(),
    )


def _add(
    connection: sa.Connection, context: AppContext, ids: Sequence[int], now: datetime, accepted: _Sum, waiting: _Sum
) -> None:
    touches = touches_by_ids(connection, ids)
    for past in load_pasts(connection, context, touches, now).values():
        was_accepted = any(event.state is TouchState.ACCEPTED for event in past.events)
        if past.touch.state is TouchState.ACCEPTED or was_accepted:
            accepted.add(delay_of(past, now))
        elif past.touch.state in LIVE and past.touch.delayed_since <= now:
            waiting.add(delay_of(past, now))


def _chosen(engine: sa.Engine, campaign_id: int, step_id: int, share: int, *, whole: bool) -> Iterator[list[int]]:
    """Yield ids of touches of a step, a chunk at a time: all of them, or ``share`` spread evenly over recipients."""
    with read(engine) as connection:
        first, last = recipient_range(connection, campaign_id, step_id)
    if last == 0:
        return
    chunks = max(ceil(share / CHUNK), 1)
    after, after_request, taken = first - 1, 0, 0
    while whole or taken < chunks:
        begin = first - 1 + (last - first + 1) * taken // chunks
        if not whole and begin > after:
            after, after_request = begin, 0
        with read(engine) as connection:
            page = touch_page(connection, campaign_id, step_id, after=after, after_request=after_request, limit=CHUNK)
        if not page:
            return
        yield [touch.id for touch in page]
        after, after_request, taken = page[-1].recipient_id, page[-1].request_id, taken + 1
