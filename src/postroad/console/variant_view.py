"""How the variants of a campaign are shown: the report of each step, its chart, and the state of its test."""

from __future__ import annotations

from dataclasses import dataclass

from postroad.campaign.variant_report import StepVariants, VariantDecision, variant_report
from postroad.console.interval_chart import IntervalChart, NamedRate, interval_chart
from postroad.console.visit import Visit


@dataclass(frozen=True, kw_only=True)
class StepView:
    """The variants of one step. ``badge``, ``tone``: the state of its test; empty for a step without a winner."""

    report: StepVariants
    chart: IntervalChart
    badge: str
    tone: str


async def variant_views(visit: Visit, campaign: str) -> list[StepView]:
    """Return the variants of each step that has any. Raises StateError for an unknown campaign."""
    report = await visit.run(variant_report, visit.parts.engine, campaign)
    views = []
    for step in report.steps:
        rates = [NamedRate(name=it.name, rate=it.rate, low=it.low, high=it.high) for it in step.variants]
        badge, tone = decision_badge(step.decision)
        views.append(StepView(report=step, chart=interval_chart(rates), badge=badge, tone=tone))
    return views


def decision_badge(decision: VariantDecision | None) -> tuple[str, str]:
    """Return the state of a test of variants, and its tone. Empty texts: the step has no test."""
    if decision is None:
        return "", ""
    if decision.decided_at is None:
        return ("testing", "info") if decision.begun_at is not None else ("not begun", "wait")
    return ("no winner", "warn") if decision.winner is None else (f"{decision.winner} won", "good")
