"""Dead letters are looked at, and sent again once somebody says so."""

from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.flow_runs import asuspend_flow_run
from prefect.states import Completed

from flows.params import Approval, DeadLetterParams
from postroad.errors import StateError
from tasks.dead_letters import preview, replay
from tasks.report import announce


@flow(name="dead-letters", flow_run_name="dead-letters-{params.queue}", persist_result=True)
async def dead_letters(params: DeadLetterParams) -> State[None]:
    """Look at dead letters by cause, and send them again after somebody has approved.

    First they are listed under Artifacts: how many of each cause, the newest of them, an example. Then the run waits,
    without a process, until somebody resumes it and says yes or no. Only what was dead when the run was made is sent
    again. Whoever bounced for good is not mailed: nobody is there.
    """
    # Resumed, a run begins again from its first line. The instant that it was made is the same each time.
    until = _made_at()
    groups = await preview(params.queue, params.cause, until)
    count = sum(group.letters for group in groups)
    if not groups:
        return Completed(message=f"there are no such dead letters in {params.queue}")

    described = "\n".join(f"* {group.letters:,} × {group.cause}" for group in groups)
    answer = await asuspend_flow_run(
        wait_for_input=Approval.with_initial_data(description=f"Send these {count:,} again?\n\n{described}"),
        timeout=params.wait_hours * 3600,
        key="approval",
    )
    if not answer.send_again:
        return Completed(message=f"not approved: {count:,} dead letters of {params.queue} stay as they are")

    replayed = await replay(params.queue, params.cause, until)
    announce(
        "postroad.dead_letters.replayed",
        f"postroad.queue.{params.queue}",
        params.queue,
        {"replayed": replayed, "cause": params.cause or ""},
    )
    return Completed(message=f"{replayed:,} of {count:,} dead letters of {params.queue} go out again")


def _made_at() -> datetime:
    context = FlowRunContext.get()
    made = context.flow_run.created if context is not None and context.flow_run is not None else None
    if made is None:
        raise StateError("this flow runs on a Prefect server only: somebody has to approve")
    return made
