"""postroad campaign variants: how the variants of a campaign do, and which one wins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_table, print_text

if TYPE_CHECKING:
    from postroad.app.context import AppContext
    from postroad.campaign.variant_report import StepVariants, VariantReport


def variants(
    name: Annotated[str, typer.Argument(help="Name of the campaign.")],
    as_json: JsonOption = False,
) -> None:
    """Show what became of each variant, how many recipients succeeded after it, and how the winner is decided.

    The touches of the variants, and those without one, sum to the touches of the step. Those without one wait for the
    decision, or ended before it. An interval holds at all times at once, so the table may be looked at any time.
    """
    import msgspec

    from postroad.campaign.variant_report import variant_report

    async def work(context: AppContext) -> VariantReport:
        return await asyncio.to_thread(variant_report, context.engine, name)

    report = with_context(work)
    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    for step in report.steps:
        _print_step(report.campaign, step)
    if not report.steps:
        print_line(f"no step of campaign {name} has variants")


def _print_step(campaign: str, step: StepVariants) -> None:
    outcomes = ("sent", "accepted", "bounced", "complained", "unsubscribed", "replied")
    goal = ["goal"] if any(variant.goal is not None for variant in step.variants) else []
    evidence = [f"evidence of {step.decision.evidence_needed:,.0f}"] if step.decision is not None else []
    print_table(
        f"{campaign}, step {step.step}: {step.touches:,} touches, {step.without_variant:,} without a variant",
        ["variant", "share", "touches", *outcomes, *goal, f"{step.success} rate", "95 % interval", *evidence],
        (
            [
                variant.name,
                f"{variant.share} %",
                variant.touches,
                *(getattr(variant, outcome) for outcome in outcomes),
                *([variant.goal] if goal else []),
                f"{variant.rate:.2%}",
                f"{variant.low:.2%} to {variant.high:.2%}",
                *([f"{variant.evidence:,.2f}"] if variant.evidence is not None else []),
            ]
            for variant in step.variants
        ),
    )
    if step.decision is not None:
        print_text(f"{step.decision.words}\n")
