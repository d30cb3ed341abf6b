"""Replays dead letters after an approval."""

from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.flow_runs import asuspend_flow_run
from prefect.states import Completed

from flows.params import DeadLetterParams, ReplayApproval
from postroad.errors import StateError
from tasks.dead_letters import preview, replay
from tasks.report import announce


@flow(name="dead-letters", flow_run_name="dead-letters-{params.queue}", persist_result=True)
async def dead_letters(params: DeadLetterParams) -> State[None]:
    """List dead letters by cause, and send them again after an approval.

    First they are listed under Artifacts: the number of each cause, the newest time, an example. Then the run waits,
    without a process, until an operator resumes it with a decision. Only messages that were dead when the run was
    created are sent again. Hard bounces are skipped.
    """
    # A resumed run begins again at its first line. Its creation time is the same each time.
    until = _created_at()
    groups = await preview(params.queue, params.cause, until)
    count = sum(group.letters for group in groups)
    if not groups:
        return Completed(message=f"there are no such dead letters in {params.queue}")

    described = "\n".join(f"* {group.letters:,} × {group.cause}" for group in groups)
    answer = await asuspend_flow_run(
        wait_for_input=ReplayApproval.with_initial_data(description=f"Send these {count:,} again?\n\n{described}"),
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


def _created_at() -> datetime:
    context = FlowRunContext.get()
    created = context.flow_run.created if context is not None and context.flow_run is not None else None
    if created is None:
        raise StateError("this flow needs a Prefect server, where an operator approves it")
    return created
