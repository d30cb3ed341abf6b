"""Steps that request the approval of a launch and record the decision."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from prefect import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from postroad.app.approval import (
    LaunchRequest,
    PermissionResult,
    approve,
    launch_needs_approval,
    refuse,
    request_approval,
)
from postroad.app.context import AppContext, open_context
from postroad.campaign.approval_decision import Decider
from postroad.campaign.finding import PreflightFinding
from postroad.campaign.planned_variants import describe_variants, planned_variants
from postroad.errors import PostroadError, StateError, UsageError
from postroad.forecast.forecast import ForecastRequest, forecast_campaign
from postroad.forecast.summary import describe_findings, describe_forecast
from postroad.store.approval import NAME_LENGTH
from postroad.store.engine import read
from tasks.policy import campaign_slot, retried

SCHEDULE = "a schedule"
"""Who asks for a run that a schedule started."""


@retried("request the approval")
async def request(campaign: str, asked_by: str, findings: Sequence[PreflightFinding]) -> PermissionResult:
    """Request the approval of a launch, if it needs one. Idempotent.

    Returns:
        Whether the launch may begin.

    Raises:
        StateError: There is no such campaign, or it is not known who asks and a second person has to approve.
    """
    run = FlowRunContext.get()
    assert run is not None and run.flow_run is not None  # noqa: S101, PT018  (a task of a flow)
    who = (asked_by or (SCHEDULE if run.flow_run.auto_scheduled else ""))[:NAME_LENGTH]
    async with campaign_slot(), open_context() as context:
        summary = await _summary(context, campaign, findings) if await launch_needs_approval(context, campaign) else ""
        wanted = LaunchRequest(campaign=campaign, asked_by=who, run_id=str(run.flow_run.id), summary=summary)
        result = await request_approval(context, wanted)
    if result.replaced_run is not None:
        await _end_waiting(result.replaced_run, str(run.flow_run.id))
    return result


async def _summary(context: AppContext, campaign: str, findings: Sequence[PreflightFinding]) -> str:
    """Return what the person who decides has to know, in Markdown. A forecast that fails prevents no request."""
    try:
        forecast = describe_forecast(await forecast_campaign(context, ForecastRequest(campaign=campaign)))
    except PostroadError as error:
        forecast = f"There is no forecast: {error.message}."
    variants = await asyncio.to_thread(_describe_variants, context, campaign)
    return "\n\n".join(filter(None, (forecast, variants, describe_findings(findings))))


def _describe_variants(context: AppContext, campaign: str) -> str:
    with read(context.engine) as connection:
        return describe_variants(planned_variants(connection, campaign))


async def _end_waiting(run_id: str, successor: str) -> None:
    """Cancel a run that waits for a decision that another run waits for now."""
    async with get_client() as client:
        with suppress(ObjectNotFound):
            run = await client.read_flow_run(UUID(run_id))
            if run.state is not None and run.state.is_paused():
                message = f"The run {successor} of the same campaign waits for the approval now."
                await client.set_flow_run_state(run.id, Cancelled(message=message))


@retried("record the decision")
async def decide(campaign: str, approval_id: int, run_id: str, *, approved: bool, by: str, reason: str) -> str | None:
    """Record the decision of a request that a person filled into the form of a run.

    Returns:
        Why the decision is not valid, or None.
    """
    decider = Decider(name=by, source=f"form of the Prefect run {run_id}")
    async with open_context() as context:
        try:
            if approved:
                await approve(context, campaign, decider, seen=approval_id)
            else:
                await refuse(context, campaign, decider, reason or None)
        except (StateError, UsageError) as error:
            return error.message
    return None
