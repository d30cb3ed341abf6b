"""Sends a campaign: checks it, freezes its audience and submits its messages."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.import_audience import import_audience
from flows.launch_approval import wait_for_approval
from flows.params import CampaignParams, ImportParams
from tasks.audience import find_unimported_file
from tasks.campaign import begin, follow, freeze_audience, preflight, record_failure, submit_slice
from tasks.report import announce
from tasks.result import publish_result
from tasks.slices import rows_per_slice


@flow(name="campaign", flow_run_name="campaign-{params.campaign}")
async def campaign(params: CampaignParams) -> State[None]:
    """Send a campaign to its audience.

    First everything is checked: sender, domain, template, unsubscribe link, postal address. Problems are listed under
    Artifacts, and then no message is sent. Then the audience is frozen: recipients who join the list later are not part
    of this campaign. Then the messages are sent, each in its recipient's time zone.

    A launch that needs an approval waits, without a process, until a person resumes this run with a decision. A refused
    one sends nothing, and the campaign can be launched again.

    Starting the same campaign again mails no recipient twice: it continues where an earlier run stopped.

    Cancelling or suspending this run stops the mail: the campaign is paused. Starting it again resumes it. After the
    run's end, `postroad campaign pause` does the same, and so does cancelling a second run of the campaign.
    """
    try:
        return await send(params)
    except Exception as error:
        await record_failure(params.campaign, str(error))
        raise


async def send(params: CampaignParams) -> State[None]:
    """Run the steps of the flow. The error of a step that fails is raised as it is."""
    await begin(params.campaign)
    source = await find_unimported_file(params.campaign)
    if source is not None:
        await import_audience(ImportParams(audience=source.audience, path=str(source.path)))

    report = await preflight(params.campaign)
    refused = await wait_for_approval(params.campaign, params.asked_by, report.findings)
    if refused is not None:
        return refused
    frozen = await freeze_audience(params.campaign)

    rows = rows_per_slice(frozen.audience)
    submitted, cursor, done = 0, 0, False
    while not done:
        step = await submit_slice(params.campaign, cursor, rows)
        submitted, cursor, done = submitted + step.submitted, step.cursor, step.done

    state = await follow(params.campaign, params.follow_seconds)
    await publish_result(state)
    announce(
        "postroad.campaign.submitted",
        f"postroad.campaign.{params.campaign}",
        params.campaign,
        {"audience": frozen.audience, "submitted": submitted, "counts": dict(state.counts)},
    )
    outlook = "everything due is settled" if state.settled else continuing(params.campaign)
    return Completed(message=f"{submitted:,} handed to the queue, for an audience of {frozen.audience:,}; {outlook}")


def continuing(campaign: str) -> str:
    """Return the message of a run that ends before its mail is sent, and so can no longer be cancelled."""
    return (
        f"delivery continues. To stop it: `postroad campaign pause {campaign}`, or start {campaign} again here and "
        "cancel that run"
    )
