"""The variants that a launch sends: for the person who launches or approves it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from msgspec import Struct

from postroad.printable import escape_markdown
from postroad.settings.types import duration_text
from postroad.store.campaign import find_campaign, steps_of
from postroad.store.variant_split import Criterion, WinnerRule, content_of, split_of


class PlannedVariant(Struct, frozen=True, kw_only=True):
    """A variant, its share of the recipients in percent, and its subject as a template."""

    name: str
    share: int
    subject: str


class StepVariantPlan(Struct, frozen=True, kw_only=True):
    """The variants of one step. ``rule``: how the winner is decided, as a sentence."""

    step: str
    variants: Sequence[PlannedVariant]
    rule: str

    @property
    def shares(self) -> str:
        """The variants with their shares, as in ``question 60 %, plain 40 %``."""
        return ", ".join(f"{variant.name} {variant.share} %" for variant in self.variants)


def planned_variants(connection: sa.Connection, name: str) -> list[StepVariantPlan]:
    """Return the variants of each step of a campaign that has any. Raises StateError if there is no such campaign."""
    campaign = find_campaign(connection, name)
    plans = []
    for step in steps_of(connection, campaign.id or 0):
        split = split_of(step.campaign_id, step.name, step.settings)
        if split is None:
            continue
        variants = [
            PlannedVariant(name=variant, share=share, subject=content_of(step.settings, variant)["subject"])
            for variant, share in split.shares.items()
        ]
        plans.append(StepVariantPlan(step=step.name, variants=variants, rule=_rule(split.winner)))
    return plans


def _rule(winner: WinnerRule | None) -> str:
    if winner is None:
        return "Each recipient gets the variant that is drawn. No winner is decided."
    what = "the goal" if winner.by is Criterion.GOAL else "replies"
    after = duration_text(winner.after // timedelta(milliseconds=1))
    return f"The winner is decided by {what} within {after}, with at most {winner.at_most} % of the recipients before."


def describe_variants(plans: Sequence[StepVariantPlan]) -> str:
    """Return the variants in Markdown, for the person who approves a launch; an empty text without variants."""
    lines = []
    for plan in plans:
        lines += [f"Step {escape_markdown(plan.step)} has {len(plan.variants)} variants. {plan.rule}", ""]
        lines += [
            f"* {escape_markdown(variant.name)}, {variant.share} %: {escape_markdown(variant.subject)}"
            for variant in plan.variants
        ]
        lines.append("")
    return "\n".join(lines).rstrip()
