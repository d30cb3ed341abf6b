"""Resumes the Prefect run that waits for the approval of a launch, after the decision is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from postroad.app.approval import (
    approve,
    find_pending,
    refuse,
    withdraw,
)
from postroad.app.context import AppContext
from postroad.campaign.approval_decision import Decider, DecisionResult
from postroad.errors import PostroadError, StateError, UnavailableError
from postroad.local.prefect_api import POLL_EVERY_S, PrefectApi, open_prefect
from postroad.store.approval import Approval, ApprovalState

RESUME_WITHIN_S: Final = 30.0
"""A run that was just suspended accepts no answer for a moment: Prefect stores the form after the state."""


@dataclass(frozen=True, kw_only=True)
class ResumedDecision:
    """A decision, and the page of the run that continues with it. ``url`` None: no run waited for it."""

    decision: DecisionResult
    url: str | None


async def approve_and_resume(
    context: AppContext, name: str, decider: Decider, *, seen: int | None = None
) -> ResumedDecision:
    """Approve the launch that waits, and resume its run. Idempotent: a second call resumes what the first could not.

    Args:
        context: The open parts.
        name: Name of the campaign.
        decider: Who approves.
        seen: Id of the request that the person was shown. None: the one that waits.

    Returns:
        The decision, and the run.

    Raises:
        StateError: No launch waits, its run has ended, or the decision is not possible.
        UnavailableError: Prefect or the database does not answer. The message says whether the decision is recorded.
    """
    pending = await find_pending(context, name)
    async with open_prefect(context.settings) as prefect:
        if pending is not None and pending.run_id is not None and pending.state is ApprovalState.OPEN:
            await _require_run(context, prefect, name, pending, pending.run_id)
        decision = await approve(context, name, decider, seen=seen)
        try:
            url = await _resume(prefect, decision.approval, {"approve": True, "by": decider.name, "reason": ""})
        except UnavailableError as error:
            raise UnavailableError(
                f"the approval is recorded, but the run that waits for it is not resumed: {error.message}",
                where=error.where,
                remedy=f"Run the command again, or resume the run in Prefect, or launch campaign {name} again.",
            ) from error
    return ResumedDecision(decision=decision, url=url)


async def refuse_and_resume(
    context: AppContext, name: str, decider: Decider, reason: str | None
) -> tuple[ResumedDecision, str | None]:
    """Refuse the launch that waits, and resume its run, which then ends.

    Args:
        context: The open parts.
        name: Name of the campaign.
        decider: Who refuses.
        reason: The reason.

    Returns:
        The decision and the run; and why the run was not resumed, which changes nothing: it launches nothing.

    Raises:
        StateError: No launch waits.
        UnavailableError: The database is unavailable.
    """
    decision = await refuse(context, name, decider, reason)
    answer = {"approve": False, "by": decider.name, "reason": reason or ""}
    try:
        async with open_prefect(context.settings) as prefect:
            url = await _resume(prefect, decision.approval, answer)
    except PostroadError as error:
        return ResumedDecision(decision=decision, url=None), error.message
    return ResumedDecision(decision=decision, url=url), None


async def _require_run(context: AppContext, prefect: PrefectApi, name: str, pending: Approval, run_id: str) -> None:
    """Withdraw a request whose run was cancelled or deleted: its approval would launch nothing."""
    state = (await prefect.states([run_id])).get(run_id)
    if state is not None and not state.terminal:
        return
    assert pending.id is not None  # noqa: S101  (read from its table)
    what = f"is {state.name}" if state is not None else "was deleted"
    await withdraw(context, name, pending.id, f"its Prefect run {what}")
    raise StateError(
        f"the run that asked for the approval of campaign {name} {what}, so the request is withdrawn",
        where=prefect.url_of(UUID(run_id)),
        remedy=f"`postroad campaign launch {name}` requests another.",
    )


async def _resume(prefect: PrefectApi, approval: Approval, answer: dict[str, object]) -> str | None:
    """Resume the run of a request. Return its page, or None if no run waits."""
    if approval.run_id is None or approval.used_at is not None:
        return None
    run_id, state = UUID(approval.run_id), None
    try:
        async with asyncio.timeout(RESUME_WITHIN_S):
            while True:
                state = (await prefect.states([approval.run_id])).get(approval.run_id)
                if state is None or state.terminal:
                    return None
                if state.kind == "PAUSED" and await prefect.resume(run_id, answer):
                    return prefect.url_of(run_id)
                if state.kind in ("SCHEDULED", "PENDING"):  # Another call resumed it.
                    return prefect.url_of(run_id)
                await asyncio.sleep(POLL_EVERY_S)  # It is about to be suspended, or it works with the decision.
    except TimeoutError:
        if state is not None and state.kind == "RUNNING":
            return prefect.url_of(run_id)
        raise UnavailableError(f"the run accepts no answer within {RESUME_WITHIN_S:g} s") from None
