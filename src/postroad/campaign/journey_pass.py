"""Enrols recipients in journeys and moves enrolments: the launch, and each pass over a running campaign.

Every step reads a bounded number of recipients in a transaction without a lock, decides, and writes a page of them at a
time in short transactions, each of which checks again what was read. So any of them may be the last one before a crash,
and two passes may run at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from postroad.campaign.entry import Entrant
from postroad.campaign.holidays import HolidayCalendar
from postroad.campaign.journey_context import PassContext, may_write, open_pass
from postroad.campaign.journey_facts import DatabaseFacts
from postroad.campaign.journey_goals import credit_variants
from postroad.campaign.journey_groups import Arrivals, Home, Traveller, TravellerGroup, pages_of
from postroad.campaign.rollout import Rollout
from postroad.campaign.segment import Segment
from postroad.store.campaign import Campaign, CampaignState, find_campaign
from postroad.store.ending import HashOf
from postroad.store.engine import read, write
from postroad.store.enrolment import EnrolmentState, reason_of
from postroad.store.enrolments.changes import EnrolmentMove, Entrance, Place, enter, move, revive
from postroad.store.enrolments.pending import (
    PAGE,
    READ,
    AcceptedEnrolment,
    DueEnrolment,
    FailedTouch,
    accepted_enrolments,
    due_enrolments,
    failed_touches,
    last_enrolled,
)
from postroad.store.planning import members_after
from postroad.store.touches.planning import NewTouch, PlannedStep, mark_followed_up, mark_left, plan_touches


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
    first_id = context.journey.first_id
    homes: defaultdict[tuple[datetime, Home], list[Traveller]] = defaultdict(list)
    for entrant in entrants:
        member = entrant.member
        homes[entrant.at, Home.of(member)].append(Traveller(member.recipient_id, member.address, entry=entrant.entry))
    arrivals: Arrivals = defaultdict(list)
    arrivals[first_id] = [
        TravellerGroup(travellers=of_home, home=home, after=at, planned=at, from_id=first_id, passed_id=first_id)
        for (at, home), of_home in homes.items()
    ]
    groups = _walk(context, arrivals)
    with write(context.engine) as connection:
        if not may_write(connection, context):
            return 0
        began = {entrant.member.recipient_id: entrant.entered_at(context.now) for entrant in entrants}
        entrances = [
            Entrance(one.recipient_id, group.place, began[one.recipient_id], group.goal, one.entry)
            for group in groups
            for one in group.travellers
            if group.place is not None
        ]
        entered = enter(connection, context.journey.campaign_id, entrances, context.now)
        return _plan(connection, context, groups, lambda one: one.recipient_id in entered)


def advance_enrolments(context: PassContext) -> int:
    """Move every enrolment for which something has ended: its email, or its time. Idempotent.

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


def _read_accepted(context: PassContext, step_id: int, after: int) -> list[AcceptedEnrolment]:
    with read(context.engine) as connection:
        return accepted_enrolments(connection, context.journey.campaign_id, step_id, after, limit=READ)


def _read_due(context: PassContext, last: DueEnrolment | None) -> list[DueEnrolment]:
    with read(context.engine) as connection:
        return due_enrolments(connection, context.journey.campaign_id, context.now, last, limit=READ)


def _read_failed(context: PassContext, after: int) -> list[FailedTouch]:
    with read(context.engine) as connection:
        return failed_touches(connection, context.journey.campaign_id, after)


def _continue_accepted(
    context: PassContext, accepted: Sequence[AcceptedEnrolment], step_id: int, next_id: int | None
) -> int:
    touches = {one.id: one for one in accepted if one.id is not None and one.state != EnrolmentState.COMPLETED}
    alike: defaultdict[tuple[datetime, datetime, Home], list[Traveller]] = defaultdict(list)
    for id_, one in touches.items():
        minute = one.settled_at.replace(second=0, microsecond=0)
        traveller = Traveller(one.member.recipient_id, one.member.address, id_, one.entry)
        alike[minute, one.due_at, Home.of(one.member)].append(traveller)
    arrivals: Arrivals = defaultdict(list)
    arrivals[next_id] = [
        TravellerGroup(travellers=some, home=home, after=at, planned=due_at, from_id=step_id, passed_id=step_id)
        for (at, due_at, home), some in alike.items()
    ]
    planned = 0
    for page in pages_of(_walk(context, arrivals), PAGE):
        ids = {one.enrolment_id: touches[one.enrolment_id].touch_id for group in page for one in group.travellers}
        with write(context.engine) as connection:
            if not may_write(connection, context):
                return planned
            taken = mark_followed_up(connection, sorted(ids.values()))
            followed = [id_ for id_, touch_id in ids.items() if touch_id in taken]
            revive(connection, [id_ for id_ in followed if touches[id_].state == EnrolmentState.EXITED])
            planned += _move(connection, context, [group.enrolled(set(followed)) for group in page])
    rest = [one.touch_id for one in accepted if one.id not in touches]
    for start in range(0, len(rest), PAGE):
        with write(context.engine) as connection:
            if may_write(connection, context):
                mark_followed_up(connection, rest[start : start + PAGE])
    return planned


def _continue_due(context: PassContext, due: Sequence[DueEnrolment]) -> int:
    alike: defaultdict[tuple[int, datetime, Home], list[Traveller]] = defaultdict(list)
    for one in due:
        traveller = Traveller(one.member.recipient_id, one.member.address, one.id, one.entry)
        alike[one.step_id, one.due_at, Home.of(one.member)].append(traveller)
    arrivals: Arrivals = defaultdict(list)
    for (step_id, at, home), some in alike.items():
        group = TravellerGroup(travellers=some, home=home, after=at, planned=at, from_id=step_id, passed_id=step_id)
        context.journey.leave(arrivals, group, context.now)
    planned = 0
    for page in pages_of(_walk(context, arrivals), PAGE):
        with write(context.engine) as connection:
            if not may_write(connection, context):
                return planned
            planned += _move(connection, context, page)
    return planned


def _walk(context: PassContext, arrivals: Arrivals) -> list[TravellerGroup]:
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
            [touch.id],
            touch.step_id,
            Place(touch.step_id, EnrolmentState.EXITED, why=reason_of(touch.state, touch.cause)),
            touch.recipient_id in reached,
        )
        for touch in failed
        if touch.id is not None
    ]
    with write(context.engine) as connection:
        if may_write(connection, context):
            mark_left(connection, [touch.touch_id for touch in failed])
            move(connection, moves, context.now)
            credit_variants(connection, context, [id_ for one in moves if one.goal for id_ in one.enrolment_ids])


def _move(connection: sa.Connection, context: PassContext, groups: Sequence[TravellerGroup]) -> int:
    """Move enrolments to their next places, and plan the emails of those that moved. Returns the planned touches."""
    moves = [
        EnrolmentMove([one.enrolment_id for one in group.travellers], group.from_id, group.place, group.goal)
        for group in groups
        if group.place is not None and group.travellers
    ]
    moved = move(connection, moves, context.now)
    credit_variants(connection, context, [id_ for one in moves if one.goal for id_ in one.enrolment_ids])
    return _plan(connection, context, groups, lambda one: one.enrolment_id in moved)


def _plan(
    connection: sa.Connection,
    context: PassContext,
    groups: Sequence[TravellerGroup],
    changed: Callable[[Traveller], bool],
) -> int:
    """Plan the emails of those travellers who are at one now. ``changed``: whether a traveller came there."""
    emails = {email.step_id: email.plan for email in context.journey.emails}
    hash_of = context.hash_of
    touches: defaultdict[int, list[NewTouch]] = defaultdict(list)
    for group in groups:
        place = group.place
        if place is not None and place.step_id in emails and place.state is EnrolmentState.ACTIVE:
            due = group.email_due
            assert due is not None  # noqa: S101  (set with the place)
            touches[place.step_id] += [
                NewTouch(one.recipient_id, due, hash_of(one.address) if hash_of is not None else None, one.entry)
                for one in group.travellers
                if changed(one)
            ]
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
