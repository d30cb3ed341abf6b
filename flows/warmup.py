"""Advances the warmup of a sender by one day."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.import_audience import import_audience
from flows.params import ImportParams, WarmupParams
from tasks.audience import find_unimported_file
from tasks.campaign import preflight
from tasks.report import announce
from tasks.warmup import close_day, explain, make_seed_campaign, plan_seed_mail, set_caps


@flow(name="warmup", flow_run_name="warmup-{params.sender}")
async def warmup(params: WarmupParams) -> State[None]:
    """Close a sender's day and set the caps of the next.

    Counts the outcomes of its mail at each mailbox provider, and raises, keeps, lowers or pauses each cap, with the
    reason under Artifacts. A day is decided once: another run changes nothing. After days without a run, the caps
    continue from their last value.

    If the sender has a seed list, today's mail to it is planned too, spread over its working hours.
    """
    decided = await close_day(params.sender)
    changed = await set_caps()
    await explain(params.sender)

    resource = f"postroad.sender.{params.sender}"
    for cap in decided:
        if cap.paused:
            payload = {"identity": cap.identity, "provider": cap.provider, "cap": cap.cap, "reason": cap.reason}
            announce("postroad.warmup.paused", resource, params.sender, payload)
    new = sum(cap.new for cap in decided)
    announce("postroad.warmup.decided", resource, params.sender, {"caps": len(decided), "new": new})
    seeds = await plan_seeds(params.sender)
    return Completed(message=f"{len(decided)} caps hold today, {new} decided now; {changed} gates changed{seeds}")


async def plan_seeds(sender: str) -> str:
    """Plan the day's mail to the sender's seed list, and return the result as text."""
    campaign = await make_seed_campaign(sender)
    if campaign is None:
        return ""
    source = await find_unimported_file(campaign)
    if source is not None:
        await import_audience(ImportParams(audience=source.audience, path=str(source.path)))
    await preflight(campaign)
    plan = await plan_seed_mail(sender, campaign)
    return f"; {plan.planned} messages today to {plan.members} of its seed list ({plan.permission})"
