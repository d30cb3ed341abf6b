"""Requests the approval of a launch, and records who approved or refused it. Commands, flows and pages call this."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.campaign.approval import (
    LaunchSize,
    applies,
    campaign_digest,
    has_begun,
    launch_size,
    needs_approval,
)
from postroad.campaign.approval_decision import Decider, DecisionResult, approve_in, refuse_in, require_name
from postroad.errors import StateError
from postroad.settings import ApprovalSettings
from postroad.store import approval as store
from postroad.store.approval import NAME_LENGTH, Approval, ApprovalState, NamedApproval
from postroad.store.campaign import Campaign, find_campaign
from postroad.store.campaign_run import delete_runs
from postroad.store.engine import read, write

if TYPE_CHECKING:
    from postroad.campaign.file_trial import FileTrial


class LaunchPermission(StrEnum):
    """Whether a launch may begin."""

    FREE = "free"
    """It needs no approval, or began before."""
    APPROVED = "approved"
    REFUSED = "refused"
    WAITING = "waiting"


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """A request to launch a campaign.

    ``asked_by``: the person, or the schedule. ``run_id``: the Prefect run that waits. ``summary``: what the person who
    decides is shown.
    """

    campaign: str
    asked_by: str
    run_id: str | None = None
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class PermissionResult:
    """The answer to a request. ``approval``: the request and its decision; None if no approval is needed.

    ``new``: this call made the request. ``replaced_run``: a Prefect run that waited for the same decision, and waits no
    longer.
    """

    permission: LaunchPermission
    approval: Approval | None = None
    replaced_run: str | None = None
    new: bool = False


async def launch_needs_approval(context: AppContext, name: str, *, coming: FileTrial | None = None) -> bool:
    """Return whether a launch of this campaign now has to be approved first, and is not.

    Args:
        context: The open parts.
        name: Name of the campaign.
        coming: Trial of the file that the launch imports first. None: it imports no file.

    Returns:
        Whether a person has to approve it.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database is unavailable.
    """
    return await asyncio.to_thread(_lacks_approval, context, name, coming)


def _lacks_approval(context: AppContext, name: str, coming: FileTrial | None) -> bool:
    now, rules = context.clock.now(), context.settings.approval
    size = launch_size(context.engine, name, now, rules, coming)
    with read(context.engine) as connection:
        campaign = find_campaign(connection, name)
        if has_begun(campaign) or not needs_approval(campaign, rules, size):
            return False
        last = store.last_approval(connection, campaign.id or 0)
        approved = last is not None and last.state is ApprovalState.APPROVED
        return not (approved and last and applies(last, campaign_digest(connection, campaign), size, rules, now))


async def request_approval(context: AppContext, request: LaunchRequest) -> PermissionResult:
    """Request the approval of a launch. Idempotent for the run that asks.

    A pending request that does not apply any more is withdrawn, and a new one is made. While a run waits, stopping it
    pauses no campaign: its row of `campaign_run` is deleted in the same transaction.

    Args:
        context: The open parts.
        request: The request.

    Returns:
        Whether the launch may begin, and the request.

    Raises:
        StateError: There is no such campaign; or a second person has to approve, and it is not known who asks.
        UsageError: The name of the person who asks is not valid.
        UnavailableError: The database is unavailable.
    """
    return await asyncio.to_thread(_request, context, request)


def _request(context: AppContext, request: LaunchRequest) -> PermissionResult:
    now, rules = context.clock.now(), context.settings.approval
    size = launch_size(context.engine, request.campaign, now, rules)
    with write(context.engine) as connection:
        campaign = find_campaign(connection, request.campaign, for_update=True)
        if has_begun(campaign) or not needs_approval(campaign, rules, size):
            return PermissionResult(permission=LaunchPermission.FREE)
        digest = campaign_digest(connection, campaign)
        last = store.last_approval(connection, campaign.id or 0)
        if last is not None and last.id is not None:
            if last.state is ApprovalState.REFUSED and last.run_id is not None and last.run_id == request.run_id:
                return PermissionResult(permission=LaunchPermission.REFUSED, approval=last)
            if applies(last, digest, size, rules, now):
                if last.state is ApprovalState.OPEN and last.run_id != request.run_id:
                    _require_asker(request, rules)
                return _continue(connection, last, request)
            if last.pending:
                why = "its time was over" if last.expired(now) else "the campaign or its audience changed"
                store.withdraw(connection, last.id, why, now)
        _require_asker(request, rules)
        opened = store.add_approval(connection, _row(campaign, request, digest, size, rules, now))
        _wait(connection, request)
        replaced = last.run_id if last is not None and last.pending and last.run_id != request.run_id else None
    return PermissionResult(permission=LaunchPermission.WAITING, approval=opened, replaced_run=replaced, new=True)


def _continue(connection: sa.Connection, last: Approval, request: LaunchRequest) -> PermissionResult:
    """Use a pending request that applies: it is approved, or another run waits for it now."""
    if last.state is ApprovalState.APPROVED:
        return PermissionResult(permission=LaunchPermission.APPROVED, approval=last)
    replaced = None
    if last.run_id != request.run_id and last.id is not None:
        store.take_over(connection, last.id, run_id=request.run_id, by=request.asked_by)
        replaced = last.run_id
    _wait(connection, request)
    return PermissionResult(permission=LaunchPermission.WAITING, approval=last, replaced_run=replaced)


def _wait(connection: sa.Connection, request: LaunchRequest) -> None:
    if request.run_id is not None:
        delete_runs(connection, [request.run_id])


def _row(
    campaign: Campaign,
    request: LaunchRequest,
    digest: str,
    size: LaunchSize,
    rules: ApprovalSettings,
    now: datetime,
) -> Approval:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    return Approval(
        campaign_id=campaign.id,
        state=ApprovalState.OPEN,
        digest=digest,
        people=size.people,
        summary=request.summary,
        requested_at=now,
        requested_by=request.asked_by[:NAME_LENGTH],
        expires_at=now + timedelta(milliseconds=rules.valid_ms),
        run_id=request.run_id,
    )


def _require_asker(request: LaunchRequest, rules: ApprovalSettings) -> None:
    if request.asked_by:
        require_name(request.asked_by, "asks")
    if rules.second_person and not request.asked_by.strip():
        raise StateError(
            f"the launch of campaign {request.campaign} needs the approval of a second person, and it is not known who "
            "asks for it",
            remedy="Fill in the field `Asked by` of the form, or use `postroad campaign launch`.",
        )


async def approve(context: AppContext, name: str, decider: Decider, *, seen: int | None = None) -> DecisionResult:
    """Approve the launch that waits. Idempotent.

    Args:
        context: The open parts.
        name: Name of the campaign.
        decider: Who approves.
        seen: Id of the request that the person was shown. None: the one that waits.

    Returns:
        The decision.

    Raises:
        StateError: No launch waits, it was refused, it expired, the campaign changed, a second person is needed, or
            the person was shown another request.
        UsageError: The name is not valid.
        UnavailableError: The database is unavailable.
    """

    def decide() -> DecisionResult:
        with write(context.engine) as connection:
            return approve_in(connection, context.settings.approval, name, decider, context.clock.now(), seen=seen)

    return await asyncio.to_thread(decide)


async def refuse(context: AppContext, name: str, decider: Decider, reason: str | None = None) -> DecisionResult:
    """Refuse the launch that waits, or take back an approval that no launch used. Idempotent.

    Args:
        context: The open parts.
        name: Name of the campaign.
        decider: Who refuses.
        reason: The reason, shown to the person who asked.

    Returns:
        The decision.

    Raises:
        StateError: No launch waits.
        UsageError: The name is not valid.
        UnavailableError: The database is unavailable.
    """

    def decide() -> DecisionResult:
        with write(context.engine) as connection:
            return refuse_in(connection, name, decider, reason, context.clock.now())

    return await asyncio.to_thread(decide)


async def withdraw(context: AppContext, name: str, approval_id: int, why: str) -> None:
    """Withdraw a pending request, such as one whose run was cancelled.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database is unavailable.
    """

    def write_withdrawal() -> None:
        with write(context.engine) as connection:
            find_campaign(connection, name, for_update=True)
            store.withdraw(connection, approval_id, why, context.clock.now())

    await asyncio.to_thread(write_withdrawal)


async def list_approvals(
    context: AppContext, name: str | None, limit: int, *, before: int | None = None
) -> list[NamedApproval]:
    """Return requests and their decisions, the newest first.

    Args:
        context: The open parts.
        name: Only of this campaign; None: of all.
        limit: Largest number of requests.
        before: Only requests with a smaller id: that of the last one of the page before.

    Returns:
        The requests.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database is unavailable.
    """

    def find() -> list[NamedApproval]:
        with read(context.engine) as connection:
            if name is not None:
                find_campaign(connection, name)
            return store.list_approvals(connection, name, limit, before=before)

    return await asyncio.to_thread(find)


async def find_pending(context: AppContext, name: str) -> Approval | None:
    """Return the pending request of a campaign. Raises StateError if there is no such campaign."""

    def find() -> Approval | None:
        with read(context.engine) as connection:
            last = store.last_approval(connection, find_campaign(connection, name).id or 0)
            return last if last is not None and last.pending else None

    return await asyncio.to_thread(find)
