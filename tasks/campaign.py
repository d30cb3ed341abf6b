"""Steps that send a campaign."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from postroad.app.context import open_context
from postroad.app.preflight import preflight as check
from postroad.app.submit import submit
from postroad.campaign.launch_rules import LaunchRules
from postroad.campaign.plan import LaunchResult, launch
from postroad.campaign.preflight import PreflightReport
from postroad.campaign.status import CampaignSummary, summary
from postroad.delivery.submit import SubmitResult, queue_name
from postroad.local.run_watch import pause_stopped
from postroad.operations.campaign_runs import begin_run
from postroad.store.campaign import record_launch_error
from postroad.store.engine import write
from tasks.policy import campaign_slot, retried
from tasks.report import ProgressBar, publish_sentences
from tasks.result import delivery_title, ended

FOLLOW_EVERY_S: Final = 1.0


@retried("begin")
async def begin(campaign: str) -> None:
    """Record that this run works on the campaign: if it is cancelled or suspended, the campaign is paused.

    A campaign that a stopped run paused is resumed, unless a schedule started this run. Raises StateError for one that
    is paused otherwise.
    """
    run = FlowRunContext.get()
    assert run is not None and run.flow_run is not None  # noqa: S101, PT018  (a task of a flow)
    async with campaign_slot(), open_context() as context:
        queue = await context.queue(await asyncio.to_thread(queue_name, context.engine, campaign))
        await begin_run(
            context.engine,
            queue,
            campaign,
            str(run.flow_run.id),
            scheduled=run.flow_run.auto_scheduled,
            now=context.clock.now(),
        )


@retried("pause stopped campaigns")
async def pause_stopped_campaigns() -> list[str]:
    """Pause each campaign whose run was cancelled or suspended. Returns their names."""
    async with open_context() as context:
        return await pause_stopped(context)


@retried("record the failed launch")
async def record_failure(campaign: str, error: str) -> None:
    """Keep why a launch failed, so that `postroad campaign status` shows it."""
    async with open_context() as context:

        def write_failure() -> None:
            with write(context.engine) as connection:
                record_launch_error(connection, campaign, error, context.clock.now())

        await asyncio.to_thread(write_failure)


@retried("preflight")
async def preflight(campaign: str) -> PreflightReport:
    """Check all that can be checked before the first message.

    Returns:
        The report, whose findings are warnings.

    Raises:
        PreflightError: The campaign may not be sent. It contains every finding.
    """
    async with campaign_slot(), open_context() as context:
        report = await check(context, campaign)
    if report.findings:
        await publish_sentences(
            f"preflight-{campaign}",
            [{"level": str(f.level), "what": f.what, "remedy": f.remedy} for f in report.findings],
            f"What was found before sending {campaign}.",
        )
    report.require_ok()
    return report


@retried("freeze the audience")
async def freeze_audience(campaign: str) -> LaunchResult:
    """Freeze the audience of the campaign. Idempotent.

    Returns:
        The campaign and the size of its audience.

    Raises:
        StateError: The run was cancelled or suspended meanwhile, and its process did not notice.
    """
    async with campaign_slot(), open_context() as context:
        return await asyncio.to_thread(
            launch,
            context.engine,
            campaign,
            context.clock.now(),
            context.hash_of,
            run_id=flow_run.get_id(),
            calendar=context.calendar,
            rules=LaunchRules.of(context.settings),
        )


@retried("submit", run_name="submit from {cursor}", retries=5)
async def submit_slice(campaign: str, cursor: int, rows: int) -> SubmitResult:
    """Submit the next messages that are due to the queue, starting after `cursor`.

    The id of a job derives from the ledger. A message that is submitted twice after a lost reply is queued once.

    Returns:
        How far the submission came.
    """
    async with campaign_slot(), open_context() as context:
        return await submit(context, campaign, cursor=cursor, rows=rows)


@retried("follow delivery")
async def follow(campaign: str, follow_seconds: int) -> CampaignSummary:
    """Update the progress bar until every due message has an outcome, for at most `follow_seconds`.

    It only reads, so it takes no slot.

    Returns:
        The last state of the campaign.
    """
    until = time.monotonic() + follow_seconds
    bar = await ProgressBar.open(f"delivery-{campaign}", delivery_title(campaign))
    async with open_context() as context:
        while True:
            state = await asyncio.to_thread(summary, context.engine, campaign)
            await bar.move(ended(state), state.audience)
            left_s = until - time.monotonic()
            if state.settled or left_s <= 0:
                return state
            await asyncio.sleep(min(FOLLOW_EVERY_S, left_s))
