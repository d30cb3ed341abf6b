"""Waits for the approval of a launch: suspends the run with a form, as often as a valid decision needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from prefect.client.schemas.objects import State
from prefect.flow_runs import asuspend_flow_run
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.params import LaunchApproval
from postroad.app.approval import LaunchPermission
from postroad.campaign.finding import PreflightFinding
from postroad.store.approval import Approval
from tasks.approval import decide, request
from tasks.campaign import begin
from tasks.report import announce

REFUSED = "Refused"
"""Name of the state of a run whose launch was refused."""


async def wait_for_approval(campaign: str, asked_by: str, findings: Sequence[PreflightFinding]) -> State[None] | None:
    """Return when the launch may begin, or the state with which the run ends because it was refused.

    A run that waits has no process, and stopping it pauses no campaign. A run that is resumed begins again at its first
    line, and comes here with the same keys, for which Prefect returns the answers that were given.
    """
    faults: dict[int, str] = {}
    asked: Counter[int] = Counter()
    while True:
        result = await request(campaign, asked_by, findings)
        approval = result.approval
        if approval is None or approval.id is None:
            return None
        if result.permission is LaunchPermission.APPROVED:
            await begin(campaign)  # While it waited, the run had no part in the campaign.
            return None
        if result.permission is LaunchPermission.REFUSED:
            return Completed(name=REFUSED, message=_refusal(campaign, approval))
        asked[approval.id] += 1
        if result.new:
            _announce(campaign, approval)
        answer = await asuspend_flow_run(
            wait_for_input=LaunchApproval.with_initial_data(
                description=_question(campaign, approval, faults.get(approval.id))
            ),
            timeout=max(int((approval.expires_at - datetime.now(UTC)).total_seconds()), 1),
            key=f"approval-{approval.id}-{asked[approval.id]}",
        )
        fault = await decide(
            campaign, approval.id, str(flow_run.get_id()), approved=answer.approve, by=answer.by, reason=answer.reason
        )
        if fault is not None:
            faults[approval.id] = fault


def _question(campaign: str, approval: Approval, fault: str | None) -> str:
    people = "people who enter later" if approval.people is None else f"{approval.people:,} people"
    by = f", as {approval.requested_by} asks" if approval.requested_by else ""
    first = f"**Not accepted:** {fault}.\n\n" if fault else ""
    return f"{first}## Send {campaign} to {people}{by}?\n\n{approval.summary}"


def _refusal(campaign: str, approval: Approval) -> str:
    why = f": {approval.reason}" if approval.reason else ""
    return f"{approval.decided_by} refused the launch of {campaign}{why}. It is a draft, and can be launched again."


def _announce(campaign: str, approval: Approval) -> None:
    announce(
        "postroad.campaign.approval_requested",
        f"postroad.campaign.{campaign}",
        campaign,
        {
            "people": approval.people,
            "requested_by": approval.requested_by,
            "expires_at": approval.expires_at.isoformat(),
            "approve": f"postroad campaign approve {campaign} --by WHO",
        },
    )
