"""Reports the variants of a campaign: what became of each, how good it is, and how the winner was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

import sqlalchemy as sa
from msgspec import Struct

from postroad.campaign.sequential_test import FALSE_WINNER, evidence_needed, evidence_of, rate_interval
from postroad.store.campaign import Campaign, CampaignState, Step, find_campaign, steps_of
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from postroad.store.touch_count import counts_by_step
from postroad.store.variant import (
    DecisionReason,
    VariantOutcome,
    VariantTest,
    counts_by_variant,
    variant_tests,
)
from postroad.store.variant_split import Criterion, VariantSplit, split_of


class VariantFigures(Struct, frozen=True, kw_only=True):
    """What became of one variant, in touches.

    ``share``: percent of the recipients, before a decision. ``counts``: by state; states without touches are missing.
    ``sent``: a server accepted it, it bounced, or that is unknown. ``clicked``: None, because clicks are not counted
    for single recipients. ``goal``: None for a campaign without a goal. ``rate``, ``low``, ``high``: share of the
    accepted ones that succeeded so far, with its confidence interval. ``evidence``: that it is better than each of the
    others, by the successes so far, or by those at the decision; None if the step has no rule of a winner.
    """

    name: str
    share: int
    touches: int
    counts: dict[TouchState, int]
    sent: int
    accepted: int
    bounced: int
    complained: int
    unsubscribed: int
    clicked: int | None
    replied: int
    goal: int | None
    rate: float
    low: float
    high: float
    evidence: float | None


class VariantDecision(Struct, frozen=True, kw_only=True):
    """How the winner of a step is decided, and what was.

    ``after_ms``: longest time of the test. ``at_most``: percent of the recipients who get a variant before.
    ``begun_at``, ``decide_at``: None before the first touch is planned. ``planned``, ``tested``: recipients of the step
    before the decision, and those of the test. ``waiting``: touches that wait for their variant. ``winner`` None with
    ``decided_at``: no winner. ``words``: all of it as a sentence. ``evidence``: accepted messages and successes of each
    variant, at the decision. ``evidence_needed``: a variant wins when its evidence reaches it.
    """

    by: Criterion
    after_ms: int
    at_most: int
    begun_at: datetime | None
    decide_at: datetime | None
    planned: int
    tested: int
    waiting: int
    decided_at: datetime | None
    winner: str | None
    reason: DecisionReason | None
    false_winner: float
    evidence_needed: float
    evidence: dict[str, dict[str, int]]
    words: str


class StepVariants(Struct, frozen=True, kw_only=True):
    """The variants of one step. ``touches`` = the touches of all variants + ``without_variant``.

    ``success``: what the rates count. ``decision``: None if the step has no rule of a winner.
    """

    step: str
    success: Criterion
    touches: int
    without_variant: int
    variants: list[VariantFigures]
    decision: VariantDecision | None


class VariantReport(Struct, frozen=True, kw_only=True):
    """The variants of a campaign, by steps. Steps without variants are missing."""

    campaign: str
    state: CampaignState
    steps: list[StepVariants]


def variant_report(engine: sa.Engine, name: str) -> VariantReport:
    """Return the report of a campaign's variants. It reads counts, and no touches.

    Args:
        engine: The database.
        name: Name of the campaign.

    Returns:
        The report.

    Raises:
        StateError: There is no such campaign.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None  # noqa: S101  (read from its table)
        steps = steps_of(connection, campaign.id)
        touches = counts_by_step(connection, campaign.id)
        counts = counts_by_variant(connection, campaign.id)
        tests = variant_tests(connection, campaign.id)
    found = []
    for step in steps:
        split = split_of(step.campaign_id, step.name, step.settings)
        if split is not None and step.id is not None:
            of_step = counts.get(step.id, {})
            found.append(_step(campaign, step, split, touches.get(step.id, {}), of_step, tests.get(step.id)))
    return VariantReport(campaign=name, state=campaign.state, steps=found)


def _step(
    campaign: Campaign,
    step: Step,
    split: VariantSplit,
    states: Mapping[TouchState, int],
    counts: Mapping[str, Counter[str]],
    test: VariantTest | None,
) -> StepVariants:
    has_goal = bool((campaign.journey or {}).get("goal"))
    success = split.winner.by if split.winner is not None else Criterion.GOAL if has_goal else Criterion.REPLIED
    evidence = _evidence(split, counts, test)
    variants = [
        _figures(variant, share, counts.get(variant, Counter()), success, evidence.get(variant), has_goal=has_goal)
        for variant, share in split.shares.items()
    ]
    total = sum(states.values())
    decision = _decision(campaign, split, states.get(TouchState.AWAITING, 0), test) if split.winner else None
    return StepVariants(
        step=step.name,
        success=success,
        touches=total,
        without_variant=total - sum(variant.touches for variant in variants),
        variants=variants,
        decision=decision,
    )


def _evidence(split: VariantSplit, counts: Mapping[str, Counter[str]], test: VariantTest | None) -> dict[str, float]:
    """Return what the sequential test finds for each variant; empty without a rule of a winner."""
    if split.winner is None:
        return {}
    decided = (test.evidence or {}).get("variants", {}) if test is not None else {}
    successes = {
        name: decided[name]["successes"] if name in decided else counts.get(name, Counter())[split.winner.by.value]
        for name in split.shares
    }
    return {name: evidence_of(name, successes, split.shares) for name in split.shares}


def _figures(
    name: str, share: int, counts: Counter[str], success: Criterion, evidence: float | None, *, has_goal: bool
) -> VariantFigures:
    states = {state: counts[state] for state in TouchState if counts[state]}
    sent = (TouchState.ACCEPTED, TouchState.BOUNCED, TouchState.UNKNOWN)
    interval = rate_interval(counts[success.value], counts[TouchState.ACCEPTED])
    return VariantFigures(
        name=name,
        share=share,
        touches=sum(states.values()),
        counts=states,
        sent=sum(counts[state] for state in sent),
        accepted=counts[TouchState.ACCEPTED],
        bounced=counts[TouchState.BOUNCED],
        complained=counts[VariantOutcome.COMPLAINED],
        unsubscribed=counts[VariantOutcome.UNSUBSCRIBED],
        clicked=None,
        replied=counts[VariantOutcome.REPLIED],
        goal=counts[VariantOutcome.GOAL] if has_goal else None,
        rate=interval.rate,
        low=interval.low,
        high=interval.high,
        evidence=evidence,
    )


def _decision(campaign: Campaign, split: VariantSplit, waiting: int, test: VariantTest | None) -> VariantDecision:
    rule = split.winner
    assert rule is not None  # noqa: S101  (checked by the caller)
    evidence = (test.evidence or {}).get("variants", {}) if test is not None else {}
    return VariantDecision(
        by=rule.by,
        after_ms=rule.after // timedelta(milliseconds=1),
        at_most=rule.at_most,
        begun_at=test.begun_at if test is not None else None,
        decide_at=test.decide_at if test is not None else None,
        planned=test.planned if test is not None else 0,
        tested=test.tested if test is not None else 0,
        waiting=waiting,
        decided_at=test.decided_at if test is not None else None,
        winner=test.winner if test is not None else None,
        reason=test.reason if test is not None else None,
        false_winner=FALSE_WINNER,
        evidence_needed=evidence_needed(split.shares),
        evidence=evidence,
        words=_words(campaign, split, waiting, test),
    )


def _words(campaign: Campaign, split: VariantSplit, waiting: int, test: VariantTest | None) -> str:
    over = campaign.state in (CampaignState.FINISHED, CampaignState.CANCELLED)
    if test is None or test.decided_at is None:
        if over:
            return f"not decided: the campaign is {campaign.state}"
        if test is None:
            return "not begun: no message of the step is planned"
        latest = f"at {test.decide_at:%Y-%m-%d %H:%M:%S} UTC at the latest"
        waits = f"; {waiting:,} wait for it" if waiting else ""
        return f"tests with {test.tested:,} of {test.planned:,} recipients, and is decided {latest}{waits}"
    at = f"{test.decided_at:%Y-%m-%d %H:%M:%S} UTC"
    rest = f"; {waiting:,} are still to get it" if waiting else ""
    if test.winner is None:
        return f"no winner: the time was over at {at}, and no variant was better for sure; the others get their shares"
    by = "reached the goal" if split.winner is not None and split.winner.by is Criterion.GOAL else "replied"
    of = (test.evidence or {}).get("variants", {})
    counted = ", ".join(f"{name} {of[name]['successes']:,} of {of[name]['accepted']:,}" for name in split.shares)
    return f"{test.winner} won at {at}: {by} after {counted}{rest}"
