"""Advances running campaigns."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.advance import advance_campaign, list_running, publish_advances, record_advance, renew_stopped


@flow(name="advance-campaigns")
async def advance_campaigns() -> State[None]:
    """Advance every running campaign.

    Plans follow-ups whose wait is over, submits due messages to the queue, and finishes campaigns whose messages all
    have an outcome. It runs every few minutes; a run without due messages ends at once. The current time decides which
    messages are due, not the scheduled time of the run. So a late or repeated run does no harm.
    """
    advances, failed = [], []
    for name in await list_running():
        try:
            advances.append(await advance_campaign(name))
        except Exception as error:
            # One failing campaign must not stop the others. Its task run shows the error.
            failed.append(f"{name}: {error}")

    await renew_stopped()
    if advances or not failed:
        await record_advance()
    await publish_advances(advances)
    if failed:
        return Failed(message="; ".join(failed))
    return Completed(
        message=f"{len(advances)} running, {sum(a.submitted for a in advances):,} handed to the queue, "
        f"{sum(a.finished for a in advances)} finished"
    )
