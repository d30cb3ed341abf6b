"""Decides a request for the approval of a launch, in a transaction of the caller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from postroad.campaign.approval import campaign_digest
from postroad.errors import StateError, UsageError
from postroad.settings import ApprovalSettings
from postroad.store import approval as store
from postroad.store.approval import NAME_LENGTH, Approval, ApprovalDecision, ApprovalState
from postroad.store.campaign import Campaign, find_campaign


@dataclass(frozen=True, kw_only=True)
class Decider:
    """Who decides, by the name that was given, and from where: a form, the user of a host, a page."""

    name: str
    source: str


@dataclass(frozen=True, kw_only=True)
class DecisionResult:
    """A decision. ``already``: the same decision was made before, and this call changed nothing."""

    approval: Approval
    already: bool


def approve_in(
    connection: sa.Connection,
    rules: ApprovalSettings,
    name: str,
    decider: Decider,
    now: datetime,
    *,
    seen: int | None = None,
) -> DecisionResult:
    """Approve the launch that waits. Idempotent.

    Args:
        connection: A connection in a transaction that writes.
        rules: The rule of the settings.
        name: Name of the campaign.
        decider: Who approves.
        now: The time.
        seen: Id of the request that the person was shown. None: the one that waits.

    Returns:
        The decision.

    Raises:
        StateError: No launch waits, it was refused, it expired, the campaign changed, a second person is needed, or
            the person was shown another request.
        UsageError: The name is not valid.
    """
    require_name(decider.name, "decides")
    campaign, last = _find(connection, name)
    if seen is not None and last.id != seen:
        raise StateError(
            f"the launch of campaign {name} was requested again after the request that you were shown",
            remedy=f"Look at the new one: `postroad campaign approvals {name}`.",
        )
    if last.state is ApprovalState.APPROVED and last.pending and not last.expired(now):
        return DecisionResult(approval=last, already=True)
    _require_open(name, last, now)
    if last.digest != campaign_digest(connection, campaign):
        raise StateError(
            f"campaign {name} was changed after {last.requested_by} asked for its approval",
            remedy=f"`postroad campaign launch {name}` requests another, for the campaign as it is now.",
        )
    if rules.second_person and not last.requested_by.strip():
        raise StateError(
            f"a second person has to approve the launch of campaign {name}, and it is not known who asked for it",
            remedy=f"`postroad campaign launch {name} --by WHO` requests another.",
        )
    if rules.second_person and is_same_person(decider.name, last.requested_by):
        raise StateError(
            f"{last.requested_by} asked for the launch of campaign {name}, so another person has to approve it",
            remedy="Have another person approve it: `approval.second_person` is set.",
        )
    return _decide(connection, last, ApprovalDecision(ApprovalState.APPROVED, decider.name, decider.source, None, now))


def refuse_in(
    connection: sa.Connection, name: str, decider: Decider, reason: str | None, now: datetime
) -> DecisionResult:
    """Refuse the launch that waits, or take back an approval that no launch used. Idempotent.

    Args:
        connection: A connection in a transaction that writes.
        name: Name of the campaign.
        decider: Who refuses.
        reason: The reason.
        now: The time.

    Returns:
        The decision.

    Raises:
        StateError: No launch waits.
        UsageError: The name is not valid.
    """
    require_name(decider.name, "decides")
    _, last = _find(connection, name)
    if last.state is ApprovalState.REFUSED:
        return DecisionResult(approval=last, already=True)
    if not last.pending or last.expired(now):
        _require_open(name, last, now)
    return _decide(connection, last, ApprovalDecision(ApprovalState.REFUSED, decider.name, decider.source, reason, now))


def _decide(connection: sa.Connection, last: Approval, decision: ApprovalDecision) -> DecisionResult:
    assert last.id is not None  # noqa: S101  (read from its table)
    store.decide(connection, last.id, decision)
    decided = store.last_approval(connection, last.campaign_id)
    assert decided is not None  # noqa: S101  (the row of the campaign is locked)
    return DecisionResult(approval=decided, already=False)


def is_same_person(one: str, other: str) -> bool:
    """Return whether two names may be those of one person: `ada` and `Ada@laptop` may."""
    first, second = (" ".join(name.casefold().split()) for name in (one, other))
    return first == second or first.partition("@")[0] == second or second.partition("@")[0] == first


def _find(connection: sa.Connection, name: str) -> tuple[Campaign, Approval]:
    campaign = find_campaign(connection, name, for_update=True)
    last = store.last_approval(connection, campaign.id or 0)
    if last is None:
        raise StateError(
            f"no launch of campaign {name} waits for an approval",
            remedy=f"`postroad campaign launch {name}` requests it, if it needs one. "
            "A run that was just started does so after the preflight.",
        )
    return campaign, last


def _require_open(name: str, last: Approval, now: datetime) -> None:
    if last.state is ApprovalState.OPEN and not last.expired(now):
        return
    by = f" by {last.decided_by}" if last.decided_by else ""
    why = f": {last.reason}" if last.reason else ""
    done = "was used by a launch" if last.used_at is not None else f"was {last.state}{by}{why}"
    raise StateError(
        f"no launch of campaign {name} waits for an approval: the last request "
        f"{'expired' if last.expired(now) else done}",
        remedy=f"`postroad campaign launch {name}` requests another, if it needs one.",
    )


def require_name(name: str, does: str) -> None:
    """Check the name of a person.

    Args:
        name: The name.
        does: What the person does, for the error.

    Raises:
        UsageError: It is empty, too long, or not one printable line.
    """
    if not name.strip() or not name.isprintable() or len(name) > NAME_LENGTH:
        raise UsageError(
            f"the name of the person who {does} is not valid",
            remedy=f"Write one line of at most {NAME_LENGTH} characters, as in --by ada.",
        )
