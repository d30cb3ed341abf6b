"""Lets go the next share of a rollout when the shares before it are good, and records why it does not.

The evidence is that of the cohort breaker: its sequential test, on the cohorts of the campaign and on all that was let
go so far. A person may let go the next share at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import sqlalchemy as sa

from postroad.campaign.rollout import Rollout, next_share
from postroad.delivery.outcome import HARD_CAUSES
from postroad.errors import StateError
from postroad.senders.cohort_breaker import cohort_statuses, evidence_settings, reason
from postroad.senders.sprt import CohortFinding, DayCount, assess, log_ratio
from postroad.settings import Settings
from postroad.store.campaign import Campaign, CampaignState, Step, StepKind, find_campaign, steps_of
from postroad.store.cohort import CohortEvidence, pauses_of_steps, tallies
from postroad.store.engine import read, write
from postroad.store.ledger import IN_PROGRESS, TouchState
from postroad.store.rollout import (
    RolloutShare,
    ShareHold,
    open_share,
    record_hold,
    shares_of,
    withheld_touches,
)
from postroad.store.touch_count import counts_by_step

OPEN_SHARE: Final = 0.05
"""Part of the messages that were let go whose outcome need not be known: deferred ones may take days."""
WIDENED_BY: Final = "a pass"
"""What lets a share go if no person does."""


class RolloutHold(StrEnum):
    """The kind of reason for which a share is not let go."""

    TIME = "time"  # the share before it is not out for long enough
    OUTCOMES = "outcomes"  # too few outcomes are known
    PAUSED = "cohort-paused"  # a cohort of the campaign is paused
    GUILTY = "guilty"  # the test finds a bad list, or a bad audience
    UNDECIDED = "undecided"  # the test needs more messages


_REMEDIES: Final = {
    CampaignState.DRAFT: "`postroad campaign launch {0}` lets the first share go.",
    CampaignState.PAUSED: "`postroad campaign resume {0}` resumes it.",
}


@dataclass(frozen=True, kw_only=True)
class RolloutStatus:
    """The rollout of a launched campaign. ``next``: the share that is let go next; None: all were."""

    shares: tuple[RolloutShare, ...]
    next: RolloutShare | None


def rollout_status(connection: sa.Connection, campaign: Campaign) -> RolloutStatus | None:
    """Return the rollout of a campaign. None: it has none, or was not launched."""
    shares = shares_of(connection, campaign.id or 0) if campaign.rollout is not None else []
    return RolloutStatus(shares=tuple(shares), next=next_share(shares)) if shares else None


def widen_if_good(engine: sa.Engine, settings: Settings, name: str, now: datetime) -> bool:
    """Let go the next share of a running campaign if the shares before it are good, or record why not. Idempotent.

    Args:
        engine: The ledger's database.
        settings: All settings.
        name: Name of the campaign.
        now: The time.

    Returns:
        Whether a share was let go.

    Raises:
        StateError: There is no such campaign.
        UnavailableError: The database is unavailable.
    """
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        if campaign.rollout is None or campaign.state is not CampaignState.RUNNING:
            return False
        shares = shares_of(connection, campaign.id or 0)
        coming = next_share(shares)
        if coming is None or coming.number == 1:
            return False
        if withheld_touches(connection, campaign.id or 0, coming.number - 1):
            return False  # An earlier pass was interrupted while it released the share before.
        hold = _find_hold(connection, settings, campaign, shares, coming, now)
    if hold is not None:
        if (hold.because, hold.why, hold.judged) != (coming.held_because, coming.held_why, coming.judged):
            with write(engine) as connection:
                record_hold(connection, coming, hold, now)
        return False
    return _open_if_not_paused(engine, name, coming, now)


def widen(engine: sa.Engine, name: str, number: int, *, by: str, now: datetime) -> bool:
    """Let go a share because a person says so.

    Args:
        engine: The ledger's database.
        name: Name of the campaign.
        number: Number of the share that is next, as the person saw it.
        by: Who says so.
        now: The time.

    Returns:
        Whether this call let it go. False: it was let go before.

    Raises:
        StateError: There is no such campaign or share, or the campaign does not run.
        UnavailableError: The database is unavailable.
    """
    with write(engine) as connection:
        status = require_rollout(connection, find_campaign(connection, name, for_update=True))
        last = status.next.number if status.next is not None else len(status.shares)
        if not 1 <= number <= last:
            raise StateError(f"share {number} of campaign {name} is not the next one")
        share_id = status.shares[number - 1].id
        assert share_id is not None  # noqa: S101  (read from its table)
        return open_share(connection, share_id, by=by, now=now)


def require_rollout(connection: sa.Connection, campaign: Campaign) -> RolloutStatus:
    """Return the rollout of a running campaign.

    Raises:
        StateError: It has none, or it does not run.
    """
    status = rollout_status(connection, campaign)
    if campaign.rollout is None:
        raise StateError(
            f"campaign {campaign.name} has no rollout, so it is not sent in shares",
            remedy=f"`postroad campaign status {campaign.name}` shows its state.",
        )
    if status is None or campaign.state is not CampaignState.RUNNING:
        raise StateError(
            f"campaign {campaign.name} is {campaign.state}, so no share of it can be let go",
            remedy=_REMEDIES.get(campaign.state, "`postroad campaign status {0}` shows it.").format(campaign.name),
        )
    return status


def _open_if_not_paused(engine: sa.Engine, name: str, share: RolloutShare, now: datetime) -> bool:
    """Let go a share, unless the campaign or a cohort of it was paused since the test."""
    assert share.id is not None  # noqa: S101  (read from its table)
    with write(engine) as connection:
        campaign = find_campaign(connection, name, for_update=True)
        if campaign.state is not CampaignState.RUNNING or _cohort_paused(connection, _emails(connection, campaign)):
            return False
        return open_share(connection, share.id, by=WIDENED_BY, now=now)


def _emails(connection: sa.Connection, campaign: Campaign) -> list[Step]:
    return [step for step in steps_of(connection, campaign.id or 0) if step.kind is StepKind.EMAIL]


def _find_hold(
    connection: sa.Connection,
    settings: Settings,
    campaign: Campaign,
    shares: Sequence[RolloutShare],
    coming: RolloutShare,
    now: datetime,
) -> ShareHold | None:
    """Return why the next share is not let go. None: it may be. What is cheap to find comes first."""
    emails = _emails(connection, campaign)
    return (
        _too_soon(campaign, shares[coming.number - 2], now)
        or _outcomes_missing(connection, campaign, emails[0], shares)
        or _cohort_paused(connection, emails)
        or _judge(connection, settings, campaign, emails, coming)
    )


def _too_soon(campaign: Campaign, last: RolloutShare, now: datetime) -> ShareHold | None:
    rollout = Rollout.of(campaign)
    assert rollout is not None  # noqa: S101  (the caller has read it)
    assert last.opened_at is not None  # noqa: S101  (shares are opened in order)
    until = last.opened_at + rollout.after
    if until <= now:
        return None
    return ShareHold(RolloutHold.TIME, f"share {last.number} must be out until {until:%Y-%m-%d %H:%M} UTC")


def _outcomes_missing(
    connection: sa.Connection, campaign: Campaign, email: Step, shares: Sequence[RolloutShare]
) -> ShareHold | None:
    """Return a hold while too many of the messages that were let go have no outcome."""
    counts = counts_by_step(connection, campaign.id or 0).get(email.id or 0, {})
    released = sum(share.people for share in shares if share.opened_at is not None)
    missing = sum(counts.get(state, 0) for state in (TouchState.PLANNED, *IN_PROGRESS))
    if missing <= released * OPEN_SHARE:
        return None
    why = f"the outcomes of {missing:,} of {released:,} messages are not known; at most {OPEN_SHARE:.0%} may be open"
    return ShareHold(RolloutHold.OUTCOMES, why)


def _cohort_paused(connection: sa.Connection, emails: Sequence[Step]) -> ShareHold | None:
    paused = pauses_of_steps(connection, [step.id for step in emails if step.id is not None])
    if not paused:
        return None
    source = f"of {paused[0].source} " if paused[0].source else ""
    why = f"the cohort {source}at {paused[0].provider} is paused: {paused[0].reason}"
    return ShareHold(RolloutHold.PAUSED, why)


def _judge(
    connection: sa.Connection, settings: Settings, campaign: Campaign, emails: Sequence[Step], coming: RolloutShare
) -> ShareHold | None:
    """Test what was let go. The test reads all touches, so it is not repeated for the same outcomes and settings."""
    counts = counts_by_step(connection, campaign.id or 0)
    known: list[object] = [sorted(counts.get(step.id or 0, {}).items()) for step in emails]
    known += [settings.cohort_breaker.model_dump(mode="json"), settings.bounce.act_on_unsigned]
    judged = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    if coming.judged == judged and coming.held_because is not None and coming.held_why is not None:
        return ShareHold(coming.held_because, coming.held_why, judged)
    found = _guilty_cohort(connection, settings, emails) or _judge_all(connection, settings, emails[0])
    return found._replace(judged=judged) if found is not None else None


def _guilty_cohort(connection: sa.Connection, settings: Settings, emails: Sequence[Step]) -> ShareHold | None:
    for step in emails:
        for status in cohort_statuses(connection, step.id or 0, settings):
            if status.guilty_of is not None:
                why = reason(status, status.guilty_of, settings.cohort_breaker)
                return ShareHold(
                    RolloutHold.GUILTY, f"the cohort {status.cohort.source} at {status.cohort.provider}: {why}"
                )
    return None


def _judge_all(connection: sa.Connection, settings: Settings, email: Step) -> ShareHold | None:
    """Test the first email to all who were let go, as one cohort. Hard bounces must be shown to be rare."""
    rows = tallies(
        connection,
        email.id or 0,
        source_field=settings.cohort_breaker.source_field,
        hard_causes=HARD_CAUSES,
        act_on_unsigned=settings.bounce.act_on_unsigned,
    )
    tried_rows = [row for row in rows if row.tried]
    if not tried_rows:
        return ShareHold(RolloutHold.UNDECIDED, "no message was tried")
    first, tried = min(row.day for row in tried_rows), sum(row.tried for row in tried_rows)
    for evidence in CohortEvidence:
        test = evidence_settings(settings.cohort_breaker, evidence)
        is_hard = evidence is CohortEvidence.HARD_BOUNCES
        days = [DayCount(row.day, row.tried, row.hard if is_hard else row.complained) for row in tried_rows]
        bad, kind = sum(day.bad for day in days), evidence.replace("_", " ")
        finding = assess(test, _by_day(days), first)
        shown = f"{bad:,} {kind} of {tried:,} messages"
        if finding is CohortFinding.GUILTY:
            return ShareHold(
                RolloutHold.GUILTY, f"{shown} are too many: more like {test.guilty:.1%} than {test.healthy:.1%}"
            )
        if is_hard and finding is CohortFinding.OPEN:
            needed = messages_needed(settings, bad)
            return ShareHold(RolloutHold.UNDECIDED, f"{shown} decide nothing: {needed:,} messages are needed")
    return None


def _by_day(days: Sequence[DayCount]) -> list[DayCount]:
    """Add up the counts of each day."""
    tried: dict[object, DayCount] = {}
    for day in days:
        known = tried.get(day.day, DayCount(day.day, 0, 0))
        tried[day.day] = DayCount(day.day, known.tried + day.tried, known.bad + day.bad)
    return list(tried.values())


def messages_needed(settings: Settings, hard_bounces: int = 0) -> int:
    """Return how many messages with so many hard bounces the test needs to find an audience healthy."""
    test = evidence_settings(settings.cohort_breaker, CohortEvidence.HARD_BOUNCES)
    for_each_good = -log_ratio(test, 1, 0)
    against = hard_bounces * math.log(test.guilty / test.healthy) - math.log(test.miss)
    return hard_bounces + math.ceil(against / for_each_good)
