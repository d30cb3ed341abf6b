"""Running campaigns take their next steps."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.advance import advance_campaign, list_running, publish_advances, record_advance, renew_stopped


@flow(name="advance-campaigns")
async def advance_campaigns() -> State[None]:
    """Take every running campaign one step further.

    Plans the follow-ups whose wait is over, hands what is due to the queue, and closes campaigns whose
    audience is settled. Runs by itself every few minutes; a run with nothing due ends at once. What is due
    is decided from the present hour, never from the hour the run was scheduled for: a run that comes late,
    or twice, does no harm.
    """
    advances, failed = [], []
    for name in await list_running():
        try:
            advances.append(await advance_campaign(name))
        except Exception as error:
            # One campaign with a fault must not hold up the others. Its task run shows where it came from.
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
