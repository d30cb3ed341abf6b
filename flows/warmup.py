"""A sender warms up by one day."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.params import WarmupParams
from tasks.report import announce
from tasks.warmup import close_day, explain, set_caps


@flow(name="warmup", flow_run_name="warmup-{params.sender}")
async def warmup(params: WarmupParams) -> State[None]:
    """Close a sender's day and set the caps of the next.

    Counts what became of its mail at each mailbox provider, lets each cap grow, hold, shrink or pause, and says
    why under Artifacts. A day is decided once: running it again changes nothing, and after days on which it did
    not run the caps go on from where they stood.
    """
    decided = await close_day(params.sender)
    changed = await set_caps()
    await explain(params.sender)

    resource = f"postroad.sender.{params.sender}"
    for each in decided:
        if each.paused:
            payload = {"identity": each.identity, "provider": each.provider, "cap": each.cap, "reason": each.reason}
            announce("postroad.warmup.paused", resource, params.sender, payload)
    new = sum(each.new for each in decided)
    announce("postroad.warmup.decided", resource, params.sender, {"caps": len(decided), "new": new})
    return Completed(message=f"{len(decided)} caps hold today, {new} decided now; {changed} gates changed")
