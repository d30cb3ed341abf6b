"""postroad campaign approve, refuse and approvals: who lets a launch begin."""

from __future__ import annotations

import getpass
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from postroad.cli.context import with_context
from postroad.cli.output import JsonOption, print_json, print_line, print_note, print_table
from postroad.cli.row_limit import LimitOption

if TYPE_CHECKING:
    from datetime import datetime

    from postroad.app.context import AppContext
    from postroad.campaign.approval_decision import Decider
    from postroad.local.approval_runs import ResumedDecision
    from postroad.store.approval import Approval, NamedApproval

NameArgument = Annotated[str, typer.Argument(help="Name of the campaign.")]
ByOption = Annotated[str | None, typer.Option(help="Who decides; unset: your user and host.")]


def approve(name: NameArgument, by: ByOption = None, as_json: JsonOption = False) -> None:
    """Approve the launch of a campaign that waits for it, and let its run continue.

    The approval is recorded with the name, the time, your user and host, and a digest of the campaign. It is for the
    campaign as it was when the launch was requested: after a change it has to be requested again. Approving twice
    changes nothing.
    """
    from postroad.local.approval_runs import approve_and_resume

    async def work(context: AppContext) -> ResumedDecision:
        return await approve_and_resume(context, name, _decider(by))

    done = with_context(work)
    if as_json:
        print_json(_decision(name, done))
        return
    approval = done.decision.approval
    before = " before" if done.decision.already else ""
    print_line(f"the launch of campaign {name} is approved{before} by {approval.decided_by}")
    if done.url is not None:
        print_line(f"Its run continues: {done.url}")
    elif approval.used_at is None:
        print_line(f"No run waits for it: `postroad campaign launch {name}` launches it.")


def refuse(
    name: NameArgument,
    by: ByOption = None,
    reason: Annotated[str | None, typer.Option(help="Why; shown to the person who asked.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse the launch of a campaign that waits for an approval, or take back an approval that was not used.

    The campaign stays a draft, and can be launched again. Refusing twice changes nothing.
    """
    from postroad.local.approval_runs import refuse_and_resume

    async def work(context: AppContext) -> tuple[ResumedDecision, str | None]:
        return await refuse_and_resume(context, name, _decider(by), reason)

    done, waiting = with_context(work)
    if as_json:
        print_json(_decision(name, done))
    else:
        before = " before" if done.decision.already else ""
        print_line(f"the launch of campaign {name} is refused{before} by {done.decision.approval.decided_by}")
    if waiting is not None:
        print_note(f"The run that asked still waits, and launches nothing: {waiting}")


def approvals(
    name: Annotated[str | None, typer.Argument(help="Name of the campaign; all where none is named.")] = None,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List requests to launch campaigns and their decisions, the newest first."""
    from postroad.app.approval import list_approvals

    async def work(context: AppContext) -> tuple[list[NamedApproval], datetime]:
        return await list_approvals(context, name, limit), context.clock.now()

    found, now = with_context(work)
    if as_json:
        print_json([_row(campaign, approval, now) for campaign, approval in found])
    elif found:
        rows = [_row(campaign, approval, now) for campaign, approval in found]
        shown = ("campaign", "state", "people", "requested_at", "requested_by", "decided_at", "decided_by", "reason")
        columns = [column.replace("_", " ") for column in shown]
        print_table("approvals", columns, [[row[column] for column in shown] for row in rows])
    else:
        print_line("No launch needed an approval so far.")


def _decider(by: str | None) -> Decider:
    from postroad.campaign.approval_decision import Decider

    account = f"{getpass.getuser()}@{socket.gethostname()}"
    return Decider(name=by if by is not None else account, source=f"command line of {account}")


def _decision(name: str, done: ResumedDecision) -> dict[str, object]:
    approval = done.decision.approval
    return {
        "campaign": name,
        "state": approval.state,
        "already": done.decision.already,
        "by": approval.decided_by,
        "from": approval.decided_from,
        "at": approval.decided_at,
        "reason": approval.reason,
        "people": approval.people,
        "digest": approval.digest,
        "flow_run": approval.run_id if done.url is not None else None,
        "url": done.url,
    }


def _row(campaign: str, approval: Approval, now: datetime) -> dict[str, object]:
    fields = approval.model_dump(exclude={"campaign_id", "state", "run_id"})
    state = "expired" if approval.expired(now) else approval.state.value
    return {**fields, "campaign": campaign, "state": state, "flow_run": approval.run_id}
