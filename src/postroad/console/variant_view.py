"""How the variants of a campaign are shown: the report of each step, its chart, and what its test finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from postroad.campaign.sequential_test import MAX_EVIDENCE
from postroad.campaign.variant_report import StepVariants, VariantDecision, variant_report
from postroad.console.interval_chart import IntervalChart, NamedRate, interval_chart
from postroad.console.visit import Visit


@dataclass(frozen=True, kw_only=True)
class StepView:
    """The variants of one step.

    Attributes:
        report: Their numbers.
        chart: Their rates with intervals.
        badge: The state of its test; empty for a step without a winner.
        tone: The tone of the badge.
        evidence: What the test finds for each variant, as text; empty for a step without a winner.
        finding: The same as a sentence.
    """

    report: StepVariants
    chart: IntervalChart
    badge: str
    tone: str
    evidence: Mapping[str, str]
    finding: str


async def variant_views(visit: Visit, campaign: str) -> list[StepView]:
    """Return the variants of each step that has any. Raises StateError for an unknown campaign."""
    report = await visit.run(variant_report, visit.parts.engine, campaign)
    views = []
    for step in report.steps:
        rates = [NamedRate(name=it.name, rate=it.rate, low=it.low, high=it.high) for it in step.variants]
        badge, tone = decision_badge(step.decision)
        views.append(
            StepView(
                report=step,
                chart=interval_chart(rates),
                badge=badge,
                tone=tone,
                evidence={it.name: describe_evidence(it.evidence) for it in step.variants if it.evidence is not None},
                finding=describe_test(step),
            )
        )
    return views


def decision_badge(decision: VariantDecision | None) -> tuple[str, str]:
    """Return the state of a test of variants, and its tone. Empty texts: the step has no test."""
    if decision is None:
        return "", ""
    if decision.decided_at is None:
        return ("testing", "info") if decision.begun_at is not None else ("not begun", "wait")
    return ("no winner", "warn") if decision.winner is None else (f"{decision.winner} won", "good")


def describe_evidence(evidence: float) -> str:
    """Return the evidence for a variant as text."""
    return f"over {MAX_EVIDENCE:,.0f}" if evidence >= MAX_EVIDENCE else f"{evidence:,.2f}"


def describe_test(step: StepVariants) -> str:
    """Return what the sequential test of a step finds, or found at its decision. Empty: the step has no test."""
    decision = step.decision
    with_evidence = [(variant.evidence, variant.name) for variant in step.variants if variant.evidence is not None]
    if decision is None or not with_evidence:
        return ""
    most, name = max(with_evidence, key=lambda pair: pair[0])
    needed = f"{decision.evidence_needed:,.0f}"
    if most >= decision.evidence_needed:
        better = f"The evidence that {name} is better than each of the others is {describe_evidence(most)}"
        return f"{better}, and {needed} is enough."
    return (
        f"The sequential test has no winner{'' if decision.decided_at else ' so far'}: a variant needs the evidence "
        f"{needed} that it is better than each of the others. The most is {describe_evidence(most)}, for {name}."
    )
