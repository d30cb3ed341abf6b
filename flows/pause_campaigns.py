"""Campaigns whose run was stopped are paused."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.campaign import pause_stopped_campaigns


@flow(name="pause-campaigns")
async def pause_campaigns() -> State[None]:
    """Pause each campaign whose run was cancelled or suspended.

    Cancelling a run of the flow `campaign` ends the run; the mail that it handed over waits on the queue. This
    stops it. An automation starts this flow; the recorder does the same by itself, and whichever is first does it.
    Starting it by hand does no harm.
    """
    paused = await pause_stopped_campaigns()
    return Completed(message=f"paused: {', '.join(paused)}" if paused else "every stopped run had its effect already")
