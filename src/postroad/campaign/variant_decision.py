"""Decides the winners of steps, and gives the recipients who wait their variants. Part of each pass over a campaign.

A decision is one row, which never changes. Its effects follow in bounded steps: the waiting touches themselves are what
is left to do. So a process may be killed between the decision and its effects, and the next pass continues.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from postroad.campaign.calendar import Window
from postroad.campaign.due_times import DueTimes
from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.sequence import EmailPlan, email_plan
from postroad.campaign.sequential_test import FALSE_WINNER, find_winner
from postroad.store.campaign import Campaign, CampaignState, find_campaign, steps_of
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.planning import AwaitingTouch, awaiting_touches
from postroad.store.touches.planning import GivenVariant, give_variants
from postroad.store.variant import (
    DecisionReason,
    VariantTest,
    counts_by_variant,
    find_variant_test,
    record_decision,
    variant_tests,
)
from postroad.store.variant_split import VariantSplit


class _Decider(NamedTuple):
    """What the decisions of one pass share."""

    engine: sa.Engine
    campaign: Campaign
    now: datetime


def decide_variants(
    engine: sa.Engine, campaign: Campaign, now: datetime, calendar: HolidayCalendar | None = None
) -> int:
    """Decide the tests of a running campaign that can be decided, and let the others leave. Idempotent.

    A test is decided when a variant wins, or when its time is over. Without a winner, who waited gets the variants by
    their shares.

    Args:
        engine: The ledger.
        campaign: The campaign.
        now: The time.
        calendar: The days without mail. None: public holidays alone.

    Returns:
        The number of touches that got a variant.
    """
    decider = _Decider(engine, campaign, now)
    assert campaign.id is not None  # noqa: S101  (read from its table)
    with read(engine) as connection:
        tests = variant_tests(connection, campaign.id)
        if not tests:
            return 0
        window = Window.from_row(campaign.sending_window, calendar)
        emails = [email_plan(step, window) for step in steps_of(connection, campaign.id) if step.id in tests]
    given = 0
    for email in emails:
        test = tests[email.step_id]
        if email.variants is None:
            continue
        if test.decided_at is None:
            _decide(decider, email.variants, test)
        given += _give_variants(decider, email, email.variants)
    return given


def _decide(decider: _Decider, split: VariantSplit, test: VariantTest) -> None:
    """Decide a test if a variant wins, or if its time is over."""
    with read(decider.engine) as connection:
        counts = counts_by_variant(connection, test.campaign_id).get(test.step_id, {})
    assert split.winner is not None  # noqa: S101  (the step has a test)
    by = split.winner.by.value
    successes = {name: counts[name][by] if name in counts else 0 for name in split.shares}
    winner = find_winner(successes, split.shares)
    if winner is None and decider.now < test.decide_at:
        return
    evidence = {
        "by": by,
        "false_winner": FALSE_WINNER,
        "variants": {
            name: {
                "accepted": counts[name][TouchState.ACCEPTED] if name in counts else 0,
                "successes": successes[name],
            }
            for name in split.shares
        },
    }
    reason = DecisionReason.TIME if winner is None else DecisionReason.EVIDENCE
    with write(decider.engine) as connection:
        if _is_running(connection, decider.campaign):
            record_decision(connection, test.step_id, winner, reason, evidence, decider.now)


def _is_running(connection: sa.Connection, campaign: Campaign) -> bool:
    """Whether a campaign still runs. Locks it: no touch of it is planned until the transaction ends."""
    return find_campaign(connection, campaign.name, for_update=True).state is CampaignState.RUNNING


def _give_variants(decider: _Decider, email: EmailPlan, split: VariantSplit) -> int:
    """Give the touches that wait for a decision that was made their variants. Returns how many."""
    given = 0
    due = DueTimes(replace(email, wait=timedelta()), decider.campaign)
    while True:
        with read(decider.engine) as connection:
            test = find_variant_test(connection, email.step_id)
            if test is None or test.decided_at is None:
                return given
            waiting = awaiting_touches(connection, test.campaign_id, email.step_id)
        if not waiting:
            return given
        variants = [
            GivenVariant(
                touch.touch_id,
                test.winner or split.draw(touch.recipient_id),
                _leaves_at(due, touch, decider.now),
            )
            for touch in waiting
        ]
        with write(decider.engine) as connection:
            if not _is_running(connection, decider.campaign):
                return given
            given += len(give_variants(connection, variants))


def _leaves_at(due: DueTimes, touch: AwaitingTouch, now: datetime) -> datetime | None:
    """Return when a touch may leave that waited until now; None: when it is due, which is later."""
    if touch.due_at > now:
        return None
    return max(due.after(now, touch), now)
