"""Enrols recipients in journeys and moves enrolments: the launch, and each pass over a running campaign.

Every step reads up to a page of recipients in a transaction without a lock, decides, and writes in one short
transaction that checks again what it read. So any step may be the last one before a crash, and two passes may run at
once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa

from postroad.campaign.entry import Entrant
from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.journey import Arrivals, Journey, Traveller
from postroad.campaign.journey_facts import DatabaseFacts
from postroad.campaign.rollout import Rollout
from postroad.campaign.segment import Segment
from postroad.store.campaign import Campaign, CampaignState, find_campaign, set_goal_cursor, steps_of
from postroad.store.ending import HashOf
from postroad.store.engine import read, write
from postroad.store.enrolment import EnrolmentState, reason_of
from postroad.store.enrolments.changes import EnrolmentMove, Entrance, Place, enter, move, record_goals, revive
from postroad.store.enrolments.pending import (
    PAGE,
    AcceptedEnrolment,
    DueEnrolment,
    FailedTouch,
    accepted_enrolments,
    due_enrolments,
    enrolment_page,
    failed_touches,
    last_enrolled,
)
from postroad.store.planning import members_after
from postroad.store.touches.planning import NewTouch, PlannedStep, mark_followed_up, mark_left, plan_touches
from postroad.store.variant import record_goals_of_enrolments, variant_tests

GOAL_PAGES = 10
"""Pages of enrolments that a pass looks at for the goal."""

TEST_PAGES = 40
"""Pages of enrolments that a pass looks at for the goal while the goal is to decide a winner."""


@dataclass(frozen=True, kw_only=True)
class PassContext:
    """One pass over a campaign.

    ``states``: states of the campaign in which the pass may write. ``revision``: that of the steps that it read.
    ``hash_of``: hashes an address, to find hashed suppressions. ``share``: the share of a rollout that planned emails
    are withheld with; None: they are not.
    """

    engine: sa.Engine
    name: str
    journey: Journey
    now: datetime
    revision: int = 0
    hash_of: HashOf | None = None
    states: tuple[CampaignState, ...] = (CampaignState.RUNNING,)
    share: int | None = None


def open_pass(
    engine: sa.Engine,
    name: str,
    now: datetime,
    hash_of: HashOf | None = None,
    calendar: HolidayCalendar | None = None,
) -> PassContext:
    """Return the context of a pass over a journey. Raise StateError if no campaign has that name."""
    with read(engine) as connection:
        campaign = find_campaign(connection, name)
        assert campaign.id is not None  # noqa: S101  (read from its table)
        journey = Journey(campaign, steps_of(connection, campaign.id), calendar)
        revision = campaign.revision
    return PassContext(engine=engine, name=name, journey=journey, now=now, revision=revision, hash_of=hash_of)


def freeze_journey(
    engine: sa.Engine, campaign: Campaign, hash_of: HashOf | None, calendar: HolidayCalendar | None
) -> None:
    """Enrol every member of the segment of a campaign that is being launched. The next call continues.

    The launch was begun; it is finished afterwards.
    """
    entered_at = campaign.freezing_at
    assert entered_at is not None  # noqa: S101  (set when the launch began)
    context = open_pass(engine, campaign.name, entered_at, hash_of, calendar)
    rollout = Rollout.of(campaign)
    context = replace(context, states=(CampaignState.DRAFT,), share=rollout.last if rollout is not None else None)
    segment, considered = Segment.of(campaign, entered_at), 0
    while True:
        with read(engine) as connection:
            last = max(last_enrolled(connection, context.journey.campaign_id), considered)
            members = members_after(connection, campaign.audience_id, last)
            met = segment.meeting(connection, [member.recipient_id for member in members])
            launching = find_campaign(connection, campaign.name).state is CampaignState.DRAFT
        if not members or not launching:
            return
        considered = members[-1].recipient_id
        if entering := [Entrant(member, entered_at) for member in members if member.recipient_id in met]:
            enrol(context, entering)


def enrol(context: PassContext, entrants: Sequence[Entrant]) -> int:
    """Enrol recipients, and plan the emails of those whose journey begins with one. Idempotent.

    Args:
        context: The pass.
        entrants: The recipients, each once.

    Returns:
        The number of planned touches.
    """
    arrivals: Arrivals = defaultdict(list)
    first_id = context.journey.first_id
    arrivals[first_id] = [
        Traveller(
            member=entrant.member,
            after=entrant.at,
            planned=entrant.at,
            from_id=first_id,
            passed_id=first_id,
            entry=entrant.entry,
        )
        for entrant in entrants
    ]
    travellers = _walk(context, arrivals)
    with write(context.engine) as connection:
        if not _may_write(connection, context):
            return 0
        began = {entrant.member.recipient_id: entrant.entered_at(context.now) for entrant in entrants}
        entrances = [
            Entrance(one.recipient_id, one.place, began[one.recipient_id], one.goal, one.entry)
            for one in travellers
            if one.place is not None
        ]
        entered = enter(connection, context.journey.campaign_id, entrances, context.now)
        return _plan(connection, context, [one for one in travellers if one.recipient_id in entered])


def advance_enrolments(context: PassContext) -> int:
    """EnrolmentMove every enrolment for which something has ended: its email, or its time. Idempotent.

    Returns:
        The number of planned touches.
    """
    planned = 0
    for email in context.journey.emails:
        after = 0
        while accepted := _read_accepted(context, email.step_id, after):
            planned += _continue_accepted(context, accepted, email.step_id, email.next_id)
            after = accepted[-1].touch_id
    last: DueEnrolment | None = None
    while due := _read_due(context, last):
        planned += _continue_due(context, due)
        last = due[-1]
    after = 0
    while failed := _read_failed(context, after):
        _end_failed(context, failed)
        after = failed[-1].touch_id
    return planned


def notice_goals(context: PassContext) -> int:
    """Record who reached the goal, among the enrolments of the next pages.

    The goal is also looked at before every step. This finds it during a wait, and after the last step. Each pass looks
    at the recipients after those of the pass before.

    Returns:
        The number of recipients who reached it.
    """
    goal = context.journey.goal
    if goal is None:
        return 0
    with read(context.engine) as connection:
        begin = after = find_campaign(connection, context.name).goal_cursor
        tests = variant_tests(connection, context.journey.campaign_id) if context.journey.has_variants else {}
    reached = 0
    for _ in range(TEST_PAGES if any(test.decided_at is None for test in tests.values()) else GOAL_PAGES):
        with read(context.engine) as connection:
            page = enrolment_page(connection, context.journey.campaign_id, after=after)
            latest = {one.recipient_id: one for one in page}  # A goal counts for the last entry.
            open_ids = {one.recipient_id: one.id for one in latest.values() if not one.goal}
            facts = DatabaseFacts(connection, context.journey.scope(context.now))
            found = [open_ids[recipient_id] for recipient_id in facts.matching(goal, open_ids)]
        if found:
            with write(context.engine) as connection:
                reached += record_goals(connection, found, context.now)
                _credit_variants(connection, context, found)
        after = page[-1].recipient_id if len(page) >= PAGE else 0
        if after == 0:
            break
    if after != begin:
        with write(context.engine) as connection:
            set_goal_cursor(connection, context.journey.campaign_id, after)
    return reached


def _read_accepted(context: PassContext, step_id: int, after: int) -> list[AcceptedEnrolment]:
    with read(context.engine) as connection:
        return accepted_enrolments(connection, context.journey.campaign_id, step_id, after)


def _read_due(context: PassContext, last: DueEnrolment | None) -> list[DueEnrolment]:
    with read(context.engine) as connection:
        return due_enrolments(connection, context.journey.campaign_id, context.now, last)


def _read_failed(context: PassContext, after: int) -> list[FailedTouch]:
    with read(context.engine) as connection:
        return failed_touches(connection, context.journey.campaign_id, after)


def _continue_accepted(
    context: PassContext, accepted: Sequence[AcceptedEnrolment], step_id: int, next_id: int | None
) -> int:
    arrivals: Arrivals = defaultdict(list)
    touch_ids: dict[int, int] = {}
    for touch in accepted:
        if touch.id is None or touch.state == EnrolmentState.COMPLETED:
            continue
        touch_ids[touch.id] = touch.touch_id
        arrivals[next_id].append(
            Traveller(
                member=touch.member,
                after=touch.settled_at.replace(second=0, microsecond=0),
                planned=touch.due_at,
                from_id=step_id,
                passed_id=step_id,
                enrolment_id=touch.id,
                entry=touch.entry,
            )
        )
    travellers = _walk(context, arrivals)
    with write(context.engine) as connection:
        if not _may_write(connection, context):
            return 0
        taken = mark_followed_up(connection, [touch.touch_id for touch in accepted])
        revive(
            connection, [t.id for t in accepted if t.id and t.state == EnrolmentState.EXITED and t.touch_id in taken]
        )
        return _move(connection, context, [t for t in travellers if touch_ids[t.enrolment_id or 0] in taken])


def _continue_due(context: PassContext, due: Sequence[DueEnrolment]) -> int:
    arrivals: Arrivals = defaultdict(list)
    for one in due:
        traveller = Traveller(
            member=one.member,
            after=one.due_at,
            planned=one.due_at,
            from_id=one.step_id,
            passed_id=one.step_id,
            enrolment_id=one.id,
            entry=one.entry,
        )
        context.journey.leave(arrivals, traveller, one.due_at, context.now)
    travellers = _walk(context, arrivals)
    with write(context.engine) as connection:
        return _move(connection, context, travellers) if _may_write(connection, context) else 0


def _walk(context: PassContext, arrivals: Arrivals) -> list[Traveller]:
    with read(context.engine) as connection:
        facts = DatabaseFacts(connection, context.journey.scope(context.now))
        return context.journey.walk(arrivals, facts, context.now)


def _end_failed(context: PassContext, failed: Sequence[FailedTouch]) -> None:
    journey = context.journey
    with read(context.engine) as connection:
        facts = DatabaseFacts(connection, journey.scope(context.now))
        reached = facts.matching(journey.goal, [one.recipient_id for one in failed]) if journey.goal else set()
    moves = [
        EnrolmentMove(
            touch.id,
            touch.step_id,
            Place(touch.step_id, EnrolmentState.EXITED, why=reason_of(touch.state, touch.cause)),
            touch.recipient_id in reached,
        )
        for touch in failed
        if touch.id is not None
    ]
    with write(context.engine) as connection:
        if _may_write(connection, context):
            mark_left(connection, [touch.touch_id for touch in failed])
            move(connection, moves, context.now)
            _credit_variants(connection, context, [one.enrolment_id for one in moves if one.goal])


def _may_write(connection: sa.Connection, context: PassContext) -> bool:
    campaign = find_campaign(connection, context.name, for_update=True)
    return campaign.state in context.states and campaign.revision == context.revision


def _move(connection: sa.Connection, context: PassContext, travellers: Sequence[Traveller]) -> int:
    """Move enrolments to their next places, and plan the emails of those that moved. Returns the planned touches."""
    moves = [
        EnrolmentMove(one.enrolment_id, one.from_id, one.place, one.goal)
        for one in travellers
        if one.enrolment_id is not None and one.place is not None
    ]
    moved = move(connection, moves, context.now)
    _credit_variants(connection, context, [one.enrolment_id for one in moves if one.goal])
    return _plan(connection, context, [one for one in travellers if one.enrolment_id in moved])


def _credit_variants(connection: sa.Connection, context: PassContext, enrolment_ids: Sequence[int]) -> None:
    """Record the goals of enrolments for the variants that their recipients got."""
    if context.journey.has_variants and enrolment_ids:
        record_goals_of_enrolments(connection, enrolment_ids, context.now)


def _plan(connection: sa.Connection, context: PassContext, travellers: Sequence[Traveller]) -> int:
    """Plan the emails of the travellers who are at one now."""
    emails = {email.step_id: email.plan for email in context.journey.emails}
    touches: defaultdict[int, list[NewTouch]] = defaultdict(list)
    for one in travellers:
        if one.place is not None and one.place.step_id in emails and one.place.state is EnrolmentState.ACTIVE:
            assert one.email_due is not None  # noqa: S101  (set with the place)
            hashed = context.hash_of(one.member.address) if context.hash_of is not None else None
            touches[one.place.step_id].append(NewTouch(one.recipient_id, one.email_due, hashed, one.entry))
    return sum(
        plan_touches(
            connection,
            PlannedStep(
                context.journey.campaign_id,
                step_id,
                follow_up=True,
                enrolled=True,
                variants=emails[step_id].variants,
                share=context.share,
            ),
            of_step,
            context.now,
        )
        for step_id, of_step in touches.items()
    )
