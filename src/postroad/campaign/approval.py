"""Decides whether a launch needs an approval, and whether it has one. An approval applies to one digest of a campaign.

Every launch passes `require_approval`, in the transaction that begins it.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from postroad.campaign.entry import CampaignEntry
from postroad.campaign.segment import count_audience
from postroad.errors import StateError
from postroad.settings import ApprovalSettings
from postroad.store.approval import Approval, ApprovalState, last_approval, use
from postroad.store.campaign import Campaign, CampaignState, find_campaign, steps_of
from postroad.store.engine import read

if TYPE_CHECKING:
    from postroad.campaign.file_trial import FileTrial

_NOT_CONTENT: Final = frozenset(
    {
        "id",
        "state",
        "created_at",
        "launched_at",
        "finished_at",
        "emptied_at",
        "freezing_at",
        "paused_at",
        "paused_by",
        "paused_run_id",
        "launch_failed_at",
        "launch_error",
        "suppressions_seen",
        "entry_cursor",
        "entry_closed_at",
        "goal_cursor",
        "revision",
        "extended",
    }
)
"""Columns of a campaign that say how far it came, and not what it sends to whom. Every other column is approved."""


class LaunchSize(NamedTuple):
    """The recipients of a launch now. ``people`` None: not known, because they enter later.

    ``digest``: of the campaign that they were counted for; None: no rule needed their number.
    """

    people: int | None
    digest: str | None = None


def threshold(campaign: Campaign, rules: ApprovalSettings | None) -> int | None:
    """Return above how many people a launch needs an approval: the stricter of both limits. None: there is no limit.

    The daily mail to a seed list needs none.
    """
    if campaign.warmup:
        return None
    limits = [campaign.approval_above, rules.above if rules is not None else None]
    return min((limit for limit in limits if limit is not None), default=None)


def needs_approval(campaign: Campaign, rules: ApprovalSettings | None, size: LaunchSize) -> bool:
    """Return whether a launch to so many people needs an approval. It does if their number is not known."""
    above = threshold(campaign, rules)
    return above is not None and (size.people is None or size.people > above)


def launch_size(
    engine: sa.Engine, name: str, now: datetime, rules: ApprovalSettings | None, coming: FileTrial | None = None
) -> LaunchSize:
    """Count the recipients of a launch, if a rule needs their number and the launch is not finished.

    Args:
        engine: The database.
        name: Name of the campaign.
        now: The time.
        rules: The rule of the settings.
        coming: Trial of the file that the launch would import first. None: it imports no file.

    Returns:
        The number of recipients who are not suppressed; 0 if no rule needs it.

    Raises:
        StateError: There is no such campaign.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        if threshold(campaign, rules) is None or campaign.state is not CampaignState.DRAFT:
            return LaunchSize(0)
        digest = campaign_digest(connection, campaign)
    if not CampaignEntry.of(campaign).at_launch or CampaignEntry.of(campaign).stays_open:
        return LaunchSize(None, digest)
    if coming is None:
        zones, _ = count_audience(engine, campaign, now)
        return LaunchSize(zones.total(), digest)
    zones, _ = count_audience(engine, campaign, now, excluded=coming.known, before=coming.before)
    return LaunchSize(zones.total() + coming.destinations.total(), digest)


def has_begun(campaign: Campaign) -> bool:
    """Return whether a launch of the campaign began: then it was approved, if it had to be."""
    return campaign.state is not CampaignState.DRAFT or campaign.freezing_at is not None


def campaign_digest(connection: sa.Connection, campaign: Campaign) -> str:
    """Return a SHA-256 of what a launch sends: the definition, its senders, its audience, and all contents."""
    ids = [campaign.sender_id, *(campaign.overflow["senders"] if campaign.overflow else [])]
    senders = sa.text(
        "SELECT name, address, display_name, reply_to, postal_address, route, bounce_domain FROM sender "
        "WHERE id IN :ids ORDER BY id"
    ).bindparams(sa.bindparam("ids", ids, expanding=True))
    content: dict[str, Any] = {
        "campaign": campaign.model_dump(mode="json", exclude=set(_NOT_CONTENT)),
        "senders": [list(row) for row in connection.execute(senders)],
        "steps": [
            [step.position, step.name, step.kind.value, step.settings]
            for step in steps_of(connection, campaign.id or 0)
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def allowed_people(approval: Approval, rules: ApprovalSettings | None) -> int | None:
    """Return to how many people an approval allows a launch: the audience may grow a little. None: to any number."""
    return None if approval.people is None else _grown(approval.people, rules)


def _grown(people: int, rules: ApprovalSettings | None) -> int:
    return people + int(people * (rules or ApprovalSettings()).growth)


def applies(approval: Approval, digest: str, size: LaunchSize, rules: ApprovalSettings | None, now: datetime) -> bool:
    """Return whether a pending request is for this campaign as it is now."""
    most = allowed_people(approval, rules)
    fits = most is None or (size.people is not None and size.people <= most)
    return approval.pending and not approval.expired(now) and approval.digest == digest and fits


def require_approval(
    connection: sa.Connection, campaign: Campaign, size: LaunchSize, rules: ApprovalSettings | None, now: datetime
) -> None:
    """Check that a launch which begins now is approved, and record that it uses the approval.

    Args:
        connection: A connection in the transaction that begins the launch, with the campaign's row locked.
        campaign: The campaign.
        size: Its recipients, counted shortly before.
        rules: The rule of the settings.
        now: The time.

    Raises:
        StateError: The launch needs an approval and has none that applies, or the campaign changed after the count.
    """
    _require_counted(connection, campaign, size, rules)
    if not needs_approval(campaign, rules, size):
        return
    last = last_approval(connection, campaign.id or 0)
    if last is not None and last.state is ApprovalState.APPROVED and last.id is not None:
        if applies(last, campaign_digest(connection, campaign), size, rules, now):
            use(connection, last.id, now)
            return
        if last.pending:
            raise StateError(
                f"the approval of campaign {campaign.name} by {last.decided_by} does not apply any more: "
                f"{_difference(connection, campaign, last, size, now)}",
                remedy=f"`postroad campaign launch {campaign.name}` requests another.",
            )
    people = "an unknown number of people" if size.people is None else f"{size.people:,} people"
    raise StateError(
        f"the launch of campaign {campaign.name} to {people} needs an approval",
        remedy=f"`postroad campaign launch {campaign.name}` requests it, and `postroad campaign approve "
        f"{campaign.name} --by WHO` gives it.",
    )


def _require_counted(
    connection: sa.Connection, campaign: Campaign, size: LaunchSize, rules: ApprovalSettings | None
) -> None:
    """Raise StateError if a rule needs the number of people, and they were counted before the campaign changed."""
    if threshold(campaign, rules) is None or size.digest == campaign_digest(connection, campaign):
        return
    raise StateError(
        f"campaign {campaign.name} was changed while the people of its launch were counted",
        remedy=f"`postroad campaign launch {campaign.name}` launches it as it is now.",
    )


def require_same_audience(
    connection: sa.Connection, campaign: Campaign, size: LaunchSize, rules: ApprovalSettings | None
) -> None:
    """Check that the audience of a launch which was interrupted did not grow beyond what was allowed at its begin.

    Args:
        connection: A connection in the transaction that continues the launch, with the campaign's row locked.
        campaign: The campaign.
        size: Its recipients, counted shortly before.
        rules: The rule of the settings.

    Raises:
        StateError: It did: recipients were imported after the launch began.
    """
    above = threshold(campaign, rules)
    if above is None or size.people is None:
        return
    last = last_approval(connection, campaign.id or 0)
    allowed = last.people if last is not None and last.used_at is not None else above
    if allowed is None or size.people <= (most := _grown(max(allowed, above), rules)):
        return
    raise StateError(
        f"the launch of campaign {campaign.name} was interrupted, and its audience has grown since: it was allowed for "
        f"at most {most:,} people, and now they are {size.people:,}",
        remedy=f"`postroad campaign cancel {campaign.name}` ends it. Apply it under another name to launch it again.",
    )


def _difference(
    connection: sa.Connection, campaign: Campaign, approval: Approval, size: LaunchSize, now: datetime
) -> str:
    if approval.expired(now):
        return "it expired"
    if approval.digest != campaign_digest(connection, campaign):
        return "the campaign was changed after it"
    return f"it is for {approval.people or 0:,} people, and now they are {size.people or 0:,}"


def reject_unapproved_change(connection: sa.Connection, campaign: Campaign, *, where: str) -> None:
    """Reject a change of the steps of a launched campaign that was approved: no person has approved the change.

    Args:
        connection: A connection in the transaction that changes the steps.
        campaign: The campaign.
        where: The file, for the error.

    Raises:
        StateError: The launch of the campaign used an approval.
    """
    last = last_approval(connection, campaign.id or 0)
    if last is not None and last.used_at is not None:
        raise StateError(
            f"{last.decided_by} approved the launch of campaign {campaign.name}, so its steps cannot change",
            where=where,
            remedy="Revert the change, or apply it under another name and request another approval.",
        )
