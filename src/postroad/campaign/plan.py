"""Launches and advances campaigns: plans touches of the first email, and of each next email after the previous one.

A launch freezes the audience as the touches of the first email; later changes of the audience do not affect it. Launch
and advance work in short transactions of some hundred recipients, so that a large audience does not delay sending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import sqlalchemy as sa
from sqlmodel import col

from postroad.campaign.apply_running import extend_follow_ups
from postroad.campaign.approval import LaunchSize, launch_size, require_approval, require_same_audience
from postroad.campaign.calendar import Window
from postroad.campaign.due_times import DueTimes
from postroad.campaign.entry import CampaignEntry
from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.journey_context import open_pass
from postroad.campaign.journey_entry import enrol_entrants, first_cursor
from postroad.campaign.journey_goals import notice_goals
from postroad.campaign.journey_pass import advance_enrolments, freeze_journey
from postroad.campaign.launch_rules import LaunchRules
from postroad.campaign.rollout import Rollout, draw_audience, release_open_shares
from postroad.campaign.segment import Segment, require_matching
from postroad.campaign.sequence import EmailPlan, email_sequence, first_email
from postroad.campaign.variant_decision import decide_variants
from postroad.errors import StateError
from postroad.store.campaign import Campaign, CampaignState, clear_launch_error, find_campaign, steps_of
from postroad.store.campaign_run import has_run
from postroad.store.ending import HashOf, end_suppressed, last_suppression
from postroad.store.engine import read, write
from postroad.store.enrolment import enrolments_by_step
from postroad.store.entrants import last_event
from postroad.store.ledger import TouchState
from postroad.store.planning import awaiting_follow_up, unfrozen_members
from postroad.store.recipient import audience_name
from postroad.store.rollout import RolloutShare, add_shares
from postroad.store.touch_count import counts_by_step
from postroad.store.touches.planning import NewTouch, PlannedStep, mark_followed_up, plan_touches


@dataclass(frozen=True, kw_only=True)
class LaunchResult:
    """The frozen audience of a launch. ``already``: an earlier launch froze it."""

    campaign: str
    audience: int
    suppressed: int
    already: bool


def launch(
    engine: sa.Engine,
    name: str,
    now: datetime,
    hash_of: HashOf | None = None,
    *,
    run_id: str | None = None,
    calendar: HolidayCalendar | None = None,
    rules: LaunchRules | None = None,
) -> LaunchResult:
    """Freeze the audience of a campaign in bounded steps, then set the campaign running. Idempotent.

    The next launch resumes an interrupted one, with the due times of the first. A recipient who joins the audience
    during the launch may or may not be included.

    Args:
        engine: The ledger.
        name: Name of the campaign.
        now: The time, from which the first emails are due.
        hash_of: Function that hashes an address, to find hashed suppressions. None: the admission finds them.
        run_id: The Prefect run that launches the campaign. A run that was stopped cannot launch it.
        calendar: The days without mail. None: public holidays alone.
        rules: What the settings say of launches, such as which need an approval. None: as without settings.

    Returns:
        The frozen audience.

    Raises:
        StateError: The campaign was cancelled, its audience is empty, the run was stopped, or an approval is missing.
    """
    require_matching(engine, name, now)
    rules = rules or LaunchRules()
    size = launch_size(engine, name, now, rules.approval)
    campaign, already = _begin_launch(engine, name, now, run_id, rules, size)
    if not already:
        rollout = Rollout.of(campaign)
        if campaign.journey is not None:
            if CampaignEntry.of(campaign).at_launch:
                freeze_journey(engine, campaign, hash_of, calendar)
        else:
            with read(engine) as connection:
                emails = _emails(connection, campaign, calendar)
            last: int | None = 0
            while last is not None:
                last = _freeze_step(engine, campaign, emails, hash_of, last)
        shares = []
        if rollout is not None:
            first = _first_email(engine, campaign, calendar)
            shares = draw_audience(engine, campaign, rollout, first.step_id, rules.source_field)
        already = not _finish_launch(engine, name, run_id, shares)
    _release(engine, name, calendar)
    if campaign.launch_error is not None:
        with write(engine) as connection:
            clear_launch_error(connection, name)
    audience, suppressed = _frozen(engine, campaign)
    return LaunchResult(campaign=name, audience=audience, suppressed=suppressed, already=already)


def _frozen(engine: sa.Engine, campaign: Campaign) -> tuple[int, int]:
    """Return the size of the frozen audience, and how many of it are suppressed at the first email."""
    with read(engine) as connection:
        counts = counts_by_step(connection, _id(campaign))
        if campaign.journey is not None:
            enrolled = sum(step.total for step in enrolments_by_step(connection, _id(campaign)).values())
            return enrolled, sum(states.get(TouchState.SUPPRESSED, 0) for states in counts.values())
        first = counts.get(_emails(connection, campaign)[0].step_id, {})
    return sum(first.values()), first.get(TouchState.SUPPRESSED, 0)


def _begin_launch(
    engine: sa.Engine,
    name: str,
    now: datetime,
    run_id: str | None,
    rules: LaunchRules,
    size: LaunchSize,
) -> tuple[Campaign, bool]:
    """Record the start of a launch. Return the campaign, and whether it was launched before."""
    with write(engine) as connection:
        campaign = find_campaign(connection, name, for_update=True)
        _require_active(connection, name, run_id)
        _require_not_cancelled(campaign)
        if campaign.launched_at is not None:
            return campaign, True
        anyone = sa.text("SELECT 1 FROM audience_member WHERE audience_id = :id LIMIT 1")
        if (
            not CampaignEntry.of(campaign).stays_open
            and connection.execute(anyone, {"id": campaign.audience_id}).first() is None
        ):
            audience = audience_name(connection, campaign.audience_id)
            raise StateError(
                f"the audience of campaign {name} is empty",
                remedy=f"Import it: `postroad audience import {audience} FILE`.",
            )
        if campaign.freezing_at is None:
            require_approval(connection, campaign, size, rules.approval, now)
            campaign.freezing_at = now
            # Later suppressions are found by `advance`.
            cursor = first_cursor(now, last_event(connection))
            values = {"freezing_at": now, "suppressions_seen": last_suppression(connection), "entry_cursor": cursor}
            connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign.id).values(**values))
        else:
            require_same_audience(connection, campaign, size, rules.approval)
        return campaign, False


def _require_active(connection: sa.Connection, name: str, run_id: str | None) -> None:
    """Raise StateError for a Prefect run that was stopped, in case its process is still running."""
    if run_id is not None and not has_run(connection, run_id):
        raise StateError(
            f"the Prefect run {run_id} was stopped before campaign {name} was launched",
            remedy="Start the campaign again to send it.",
        )


def _require_not_cancelled(campaign: Campaign) -> None:
    if campaign.state is CampaignState.CANCELLED:
        raise StateError(f"campaign {campaign.name} was cancelled", remedy="To send it, apply it under another name.")


def _freeze_step(
    engine: sa.Engine, campaign: Campaign, emails: Sequence[EmailPlan], hash_of: HashOf | None, after: int
) -> int | None:
    """Plan the first email of the next members who belong to the segment. Return the last member, None at the end."""
    now = campaign.freezing_at
    assert now is not None  # noqa: S101  (set when the launch began)
    rollout, email = Rollout.of(campaign), emails[0]
    share = rollout.last if rollout is not None else None
    step = PlannedStep(_id(campaign), email.step_id, follow_up=len(emails) > 1, variants=email.variants, share=share)
    with read(engine) as connection:
        members = unfrozen_members(connection, campaign.audience_id, step, after=after)
        met = Segment.of(campaign, now).meeting(connection, [member.recipient_id for member in members])
    if not members:
        return None
    due = DueTimes(emails[0], campaign)
    touches = [
        NewTouch(
            member.recipient_id,
            due.after(now, member),
            hash_of(member.address) if hash_of is not None else None,
        )
        for member in members
        if member.recipient_id in met
    ]
    if not touches:
        return members[-1].recipient_id
    with write(engine) as connection:
        current = find_campaign(connection, campaign.name, for_update=True)
        _require_not_cancelled(current)
        if current.launched_at is not None:
            return None  # A concurrent launch has finished.
        plan_touches(connection, step, touches, now)
    return members[-1].recipient_id


def _finish_launch(engine: sa.Engine, name: str, run_id: str | None, shares: Sequence[RolloutShare]) -> bool:
    """Set a campaign running, and let the first share of its rollout go. Return False if another launch did."""
    with write(engine) as connection:
        campaign = find_campaign(connection, name, for_update=True)
        _require_not_cancelled(campaign)
        _require_active(connection, name, run_id)
        if campaign.launched_at is not None:
            return False
        values = {"state": CampaignState.RUNNING, "launched_at": campaign.freezing_at, "freezing_at": None}
        connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign.id).values(**values))
        for share in shares[:1]:
            share.opened_at, share.opened_by = campaign.freezing_at, "the launch"
        add_shares(connection, shares)
        return True


def _release(engine: sa.Engine, name: str, calendar: HolidayCalendar | None) -> int:
    """Plan the touches of the shares of a rollout that were let go. Return their number."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
    if campaign.rollout is None or campaign.state is not CampaignState.RUNNING:
        return 0
    return release_open_shares(engine, campaign, _first_email(engine, campaign, calendar))


def _first_email(engine: sa.Engine, campaign: Campaign, calendar: HolidayCalendar | None) -> EmailPlan:
    with read(engine) as connection:
        steps = steps_of(connection, _id(campaign))
    return first_email(steps, Window.from_row(campaign.sending_window, calendar))


def _id(campaign: Campaign) -> int:
    assert campaign.id is not None  # noqa: S101  (read from its table)
    return campaign.id


def _emails(connection: sa.Connection, campaign: Campaign, calendar: HolidayCalendar | None = None) -> list[EmailPlan]:
    return email_sequence(steps_of(connection, _id(campaign)), Window.from_row(campaign.sending_window, calendar))


def advance(
    engine: sa.Engine,
    name: str,
    now: datetime,
    hash_of: HashOf | None = None,
    calendar: HolidayCalendar | None = None,
) -> int:
    """Plan the next email of each recipient whose last one was accepted, and end suppressed touches.

    In a journey, move the enrolments for which an email or a time has ended. Decide the winners of variants. Of a
    rollout, release what was let go. The due time counts from the minute in which the previous email was accepted, or
    from its due time: see `EmailPlan`. It works in bounded steps. If there is nothing to do, nothing is written.

    Args:
        engine: The ledger.
        name: Name of the campaign.
        now: The time.
        hash_of: Function that hashes an address, to find hashed suppressions.
        calendar: The days without mail. None: public holidays alone.

    Returns:
        The number of planned touches.
    """
    extend_follow_ups(engine, name)
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
    if campaign.state is not CampaignState.RUNNING:
        return 0
    end_suppressed(engine, _id(campaign), now, hash_of)  # First: their enrolments exit.
    _release(engine, name, calendar)
    if campaign.journey is not None:
        context = open_pass(engine, name, now, hash_of, calendar)
        planned = enrol_entrants(context) + advance_enrolments(context)
        notice_goals(context)
        decide_variants(engine, campaign, now, calendar)
        return planned
    with read(engine) as connection:
        emails = _emails(connection, campaign, calendar)
    planned = 0
    for number, (earlier, later) in enumerate(pairwise(emails), start=2):
        step = PlannedStep(_id(campaign), later.step_id, number < len(emails), variants=later.variants)
        planned += _plan_follow_ups(engine, campaign, earlier, step, DueTimes(later, campaign), hash_of, now)
    decide_variants(engine, campaign, now, calendar)
    return planned


def _plan_follow_ups(
    engine: sa.Engine,
    campaign: Campaign,
    earlier: EmailPlan,
    step: PlannedStep,
    due: DueTimes,
    hash_of: HashOf | None,
    now: datetime,
) -> int:
    planned, after = 0, 0
    while True:
        with read(engine) as connection:
            accepted = awaiting_follow_up(connection, step.campaign_id, earlier.step_id, after=after)
        if not accepted:
            return planned
        after = accepted[-1].touch_id
        touches = {
            touch.touch_id: NewTouch(
                touch.recipient_id,
                due.after(touch.settled_at.replace(second=0, microsecond=0), touch, touch.due_at),
                hash_of(touch.address) if hash_of is not None else None,
            )
            for touch in accepted
        }
        with write(engine) as connection:
            current = find_campaign(connection, campaign.name, for_update=True)
            if current.state is not CampaignState.RUNNING or current.revision != campaign.revision:
                return planned
            taken = mark_followed_up(connection, list(touches))
            planned += plan_touches(connection, step, [touches[id_] for id_ in sorted(taken)], now)
