"""Pauses campaigns whose run was stopped."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.campaign import pause_stopped_campaigns


@flow(name="pause-campaigns")
async def pause_campaigns() -> State[None]:
    """Pause each campaign whose run was cancelled or suspended.

    Cancelling a run of the flow `campaign` ends the run, but the messages that it submitted stay on the queue. This
    flow stops them. An automation starts it. The recorder does the same, and the first of both has the effect. Starting
    it manually does no harm.
    """
    paused = await pause_stopped_campaigns()
    return Completed(message=f"paused: {', '.join(paused)}" if paused else "every stopped run was handled before")
