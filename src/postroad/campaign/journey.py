"""Journeys: the steps of a campaign as a graph, and the walk of recipients through it.

A walk takes groups of recipients from one place, where something has ended, to the next, where something is awaited:
the end of an email, or a time. It passes any number of conditions on its way. It decides; `journey_pass` reads and
writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol, assert_never
from zoneinfo import ZoneInfo

from postroad.campaign.calendar import Window
from postroad.campaign.holidays import HolidayCalendar, place_of
from postroad.campaign.journey_groups import Arrivals, Traveller, TravellerGroup, ids_of
from postroad.campaign.journey_nodes import BranchNode, EmailNode, UntilNode, WaitNode, step_nodes
from postroad.campaign.sequence import wait_over
from postroad.segment.sql import ConditionScope
from postroad.segment.tree import RecipientCondition, RecipientDate, from_json
from postroad.store.campaign import Campaign, Step
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.enrolments.changes import Place

PLAN_AHEAD = timedelta(minutes=15)
"""An email after a wait is planned so long before it is due, so that it leaves on time."""

MOST_AHEAD = 6
"""Conditions that one statement evaluates for all recipients of a walk, also for those who do not come to all."""

LATE_PASS = timedelta(hours=1)
"""A time that was over for longer, because no pass was made, counts as over now."""


class Facts(Protocol):
    """What is known of recipients at the time of a walk."""

    def matching(self, condition: RecipientCondition, recipient_ids: Collection[int]) -> set[int]:
        """Return those of these recipients who match a condition."""
        ...

    def matching_each(self, conditions: Sequence[RecipientCondition], recipient_ids: Collection[int]) -> list[set[int]]:
        """Return those of these recipients who match each condition."""
        ...

    def dates(self, date: RecipientDate, recipient_ids: Collection[int]) -> dict[int, datetime]:
        """Return the dates of these recipients. Recipients without one are missing."""
        ...


class Journey:
    """The steps of a campaign, in reading order: a step that follows another is later in this order."""

    def __init__(self, campaign: Campaign, steps: Sequence[Step], calendar: HolidayCalendar | None = None) -> None:
        assert campaign.id is not None  # noqa: S101  (read from its table)
        settings = campaign.journey or {}
        self.campaign_id = campaign.id
        self._audience_id = campaign.audience_id
        self._step_ids = {step.name: step.id for step in steps if step.id is not None}
        self.exit = from_json(settings["exit"]) if settings.get("exit") else None
        self.goal = from_json(settings["goal"]) if settings.get("goal") else None
        self._window = Window.from_row(campaign.sending_window, calendar)
        self.nodes = step_nodes(steps, self._window)
        self.first_id = next(iter(self.nodes))
        self._zone = campaign.time_zone
        self._due: dict[tuple[int, timedelta, datetime, datetime, str, str], datetime] = {}

    @property
    def emails(self) -> list[EmailNode]:
        return [node for node in self.nodes.values() if isinstance(node, EmailNode)]

    @property
    def has_variants(self) -> bool:
        """Whether an email has variants."""
        return any(email.plan.variants is not None for email in self.emails)

    def scope(self, now: datetime) -> ConditionScope:
        """Return what the functions of conditions refer to at a time."""
        return ConditionScope(
            now=now, audience_id=self._audience_id, campaign_id=self.campaign_id, steps=self._step_ids
        )

    def leave(self, arrivals: Arrivals, group: TravellerGroup, now: datetime) -> None:
        """Let a group arrive where a time leads that was over at its ``after``: at the step after its wait."""
        node = self.nodes[group.from_id]
        match node:
            case WaitNode():
                self._pass(arrivals, node, group, group.after + PLAN_AHEAD if node.email else group.after, now)
            case UntilNode():  # Its date may have changed.
                arrivals[node.step_id].append(group)
            case EmailNode() | BranchNode():
                raise AssertionError(f"step {node.step_id} waits for no time")

    def walk(self, arrivals: Arrivals, facts: Facts, now: datetime) -> list[TravellerGroup]:
        """Take groups from the steps at which they arrive to their next places.

        Args:
            arrivals: The groups. It is emptied.
            facts: What is known of their travellers.
            now: The time.

        Returns:
            All travellers in groups, with their places.
        """
        known = self._look_ahead(arrivals, facts)
        done = self._exit(arrivals, known)
        for node in self.nodes.values():
            groups = arrivals.pop(node.step_id, [])
            if not groups:
                continue
            match node:
                case EmailNode():
                    done += self._reach_email(node, groups, now)
                case WaitNode():
                    done += self._reach_wait(arrivals, node, groups, now)
                case UntilNode():
                    done += self._reach_date(arrivals, node, groups, facts, now)
                case BranchNode():
                    matching = known.get(node.condition)
                    if matching is None:
                        matching = facts.matching(node.condition, ids_of(groups))
                    for group in groups:
                        group.passed_id = node.step_id
                        for part, next_id in zip(group.split(matching), (node.then_id, node.else_id), strict=True):
                            if part is not None:
                                arrivals[next_id].append(part)
                case _:
                    assert_never(node)
        for group in arrivals.pop(None, []):
            group.place = Place(group.passed_id, EnrolmentState.COMPLETED)
            done.append(group)
        return done

    def _look_ahead(self, arrivals: Arrivals, facts: Facts) -> dict[RecipientCondition, set[int]]:
        """Return who matches the exit, the goal, and the first conditions on the ways from where groups arrive."""
        conditions = [condition for condition in (self.exit, self.goal) if condition is not None]
        reached = {step_id for step_id, groups in arrivals.items() if groups}
        for node in self.nodes.values():  # In reading order: a step that follows is later.
            if isinstance(node, BranchNode) and node.step_id in reached and len(conditions) < MOST_AHEAD:
                conditions.append(node.condition)
                reached |= {node.then_id, node.else_id}
        ids = ids_of(group for groups in arrivals.values() for group in groups)
        return dict(zip(conditions, facts.matching_each(conditions, ids), strict=True))

    def _exit(self, arrivals: Arrivals, known: Mapping[RecipientCondition, set[int]]) -> list[TravellerGroup]:
        """Take out the travellers who match the exit condition, and note who reached the goal."""
        reached = known[self.goal] if self.goal is not None else set()
        leaving = known[self.exit] if self.exit is not None else set()
        done = []
        for step_id, groups in arrivals.items():
            parts: list[TravellerGroup] = []
            for group in groups:
                with_goal, others = group.split(reached)
                if with_goal is not None:
                    with_goal.goal = True
                parts += [part for part in (with_goal, others) if part is not None]
            staying = parts
            if step_id is not None:  # Otherwise no step follows: they have completed the journey.
                staying = []
                for part in parts:
                    exiting, rest = part.split(leaving)
                    if exiting is not None:
                        exiting.place = Place(part.from_id, EnrolmentState.EXITED, why=ExitReason.EXIT)
                        done.append(exiting)
                    staying += [rest] if rest is not None else []
            arrivals[step_id] = staying
        return done

    def _reach_email(
        self, node: EmailNode, groups: Sequence[TravellerGroup], now: datetime
    ) -> Sequence[TravellerGroup]:
        """Have the email planned. ``email_due`` of each group is then set."""
        for group in groups:
            due = group.email_due
            if due is None:
                due = self._email_due(node, timedelta(), group)
            if now - due > LATE_PASS:
                due = self._email_due(node, timedelta(), group.at(now.replace(second=0, microsecond=0)))
            group.email_due = due
            group.place = Place(node.step_id)
        return groups

    def _reach_wait(
        self, arrivals: Arrivals, node: WaitNode, groups: Sequence[TravellerGroup], now: datetime
    ) -> list[TravellerGroup]:
        waiting = []
        for group in groups:
            if node.email is not None:
                over = self._email_due(node.email, node.wait, group)
            else:
                over = wait_over(node.wait, group.after, group.planned, self._zone_of(group))
            if not self._wait(arrivals, node, group, over, now):
                waiting.append(group)
        return waiting

    def _reach_date(
        self, arrivals: Arrivals, node: UntilNode, groups: Sequence[TravellerGroup], facts: Facts, now: datetime
    ) -> list[TravellerGroup]:
        dates = facts.dates(node.date, ids_of(groups))
        waiting = []
        for group in groups:
            by_date: defaultdict[datetime | None, list[Traveller]] = defaultdict(list)
            for traveller in group.travellers:
                by_date[dates.get(traveller.recipient_id)].append(traveller)
            for date, travellers in by_date.items():
                part = replace(group, travellers=travellers)
                if date is None:
                    part.place = Place(node.step_id, EnrolmentState.EXITED, why=ExitReason.NO_DATE)
                    waiting.append(part)
                    continue
                over = self._email_due(node.email, timedelta(), part.at(date)) if node.email is not None else date
                if not self._wait(arrivals, node, part, over, now):
                    waiting.append(part)
        return waiting

    def _wait(
        self, arrivals: Arrivals, node: WaitNode | UntilNode, group: TravellerGroup, over: datetime, now: datetime
    ) -> bool:
        """Place a group at a wait that is over at a time. Return whether it is over already: then pass it."""
        due_at = over - PLAN_AHEAD if node.email is not None else over
        if due_at <= now:
            self._pass(arrivals, node, group, over, now)
            return True
        group.place = Place(node.step_id, due_at=due_at)
        return False

    def _pass(
        self, arrivals: Arrivals, node: WaitNode | UntilNode, group: TravellerGroup, over: datetime, now: datetime
    ) -> None:
        """Let a group arrive at the step after a wait. ``over``: when it was over, or the email after it is due."""
        group.passed_id = node.step_id
        if node.email is not None:
            group.email_due = over
        else:
            group.after = group.planned = over if now - over <= LATE_PASS else now
        arrivals[node.next_id].append(group)

    def _email_due(self, email: EmailNode, wait: timedelta, group: TravellerGroup) -> datetime:
        """Return when an email after a wait is due. Cached: groups share few time zones and minutes."""
        home, region = group.home, ""
        if self._window is not None:
            region = self._window.region(place_of(home.country, home.subdivision), home.time_zone or "", self._zone)
        key = email.step_id, wait, group.after, group.planned, home.time_zone or self._zone, region
        due = self._due.get(key)
        if due is None:
            plan, zone = replace(email.plan, wait=wait), ZoneInfo(key[4])
            due = plan.due_at(group.after, zone, planned=group.planned, region=region)
            self._due[key] = due
        return due

    def _zone_of(self, group: TravellerGroup) -> ZoneInfo:
        return ZoneInfo(group.home.time_zone or self._zone)
