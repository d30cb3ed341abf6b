"""Journeys: the steps of a campaign as a graph, and the walk of recipients through it.

A walk takes recipients from one place, where something has ended, to the next, where something is awaited: the end of
an email, or a time. It passes any number of conditions on its way. It decides; `journey_pass` reads and writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, assert_never
from zoneinfo import ZoneInfo

from postroad.campaign.calendar import Window
from postroad.campaign.holidays import HolidayCalendar, place_of
from postroad.campaign.sequence import EmailPlan, email_plan, wait_over
from postroad.segment.sql import ConditionScope
from postroad.segment.tree import RecipientCondition, RecipientDate, date_from_json, from_json
from postroad.store.campaign import Campaign, Step, StepKind
from postroad.store.enrolment import EnrolmentState, ExitReason
from postroad.store.enrolments.changes import Place
from postroad.store.planning import Member

PLAN_AHEAD = timedelta(minutes=15)
"""An email after a wait is planned so long before it is due, so that it leaves on time."""

LATE_PASS = timedelta(hours=1)
"""A time that was over for longer, because no pass was made, counts as over now."""


@dataclass(frozen=True, kw_only=True)
class EmailNode:
    """Send an email. ``plan``: when it is due, without the waits before it."""

    step_id: int
    plan: EmailPlan
    next_id: int | None


@dataclass(frozen=True, kw_only=True)
class WaitNode:
    """Wait. ``wait``: with the waits that follow directly. ``email``: the email that follows, if one does."""

    step_id: int
    wait: timedelta
    email: EmailNode | None
    next_id: int | None


@dataclass(frozen=True, kw_only=True)
class UntilNode:
    """Wait until a date of the recipient. ``email``: as in `WaitNode`."""

    step_id: int
    date: RecipientDate
    email: EmailNode | None
    next_id: int | None


@dataclass(frozen=True, kw_only=True)
class BranchNode:
    """Choose the next step by a condition."""

    step_id: int
    condition: RecipientCondition
    then_id: int | None
    else_id: int | None


StepNode = EmailNode | WaitNode | UntilNode | BranchNode


class Facts(Protocol):
    """What is known of recipients at the time of a walk."""

    def matching(self, condition: RecipientCondition, recipient_ids: Collection[int]) -> set[int]:
        """Return those of these recipients who match a condition."""
        ...

    def dates(self, date: RecipientDate, recipient_ids: Collection[int]) -> dict[int, datetime]:
        """Return the dates of these recipients. Recipients without one are missing."""
        ...


@dataclass(kw_only=True, slots=True)
class Traveller:
    """A recipient on the way to the next place.

    Attributes:
        member: The recipient.
        after: When the step before ended: an email was accepted, a wait was over, or the recipient entered.
        planned: When that was due.
        from_id: The step that the enrolment leaves; for a recipient who enters, the first one.
        passed_id: The last step that was passed.
        enrolment_id: None for a recipient who enters.
        entry: The number of the recipient's entry.
        email_due: When the email that follows is due, if that was decided when the wait before it began.
        goal: Whether the recipient has reached the goal.
        place: The result: the next place.
    """

    member: Member
    after: datetime
    planned: datetime
    from_id: int
    passed_id: int
    enrolment_id: int | None = None
    entry: int = 1
    email_due: datetime | None = None
    goal: bool = False
    place: Place | None = None

    @property
    def recipient_id(self) -> int:
        return self.member.recipient_id


Arrivals = defaultdict[int | None, list[Traveller]]
"""Travellers by the step at which they arrive; None: after the last one."""


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
        self.nodes = _nodes(steps, self._window)
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

    def leave(self, arrivals: Arrivals, traveller: Traveller, due_at: datetime, now: datetime) -> None:
        """Let a traveller arrive where a time leads that was over at ``due_at``: at the step after its wait."""
        node = self.nodes[traveller.from_id]
        match node:
            case WaitNode():
                self._pass(arrivals, node, traveller, due_at + PLAN_AHEAD if node.email else due_at, now)
            case UntilNode():  # Its date may have changed.
                arrivals[node.step_id].append(traveller)
            case EmailNode() | BranchNode():
                raise AssertionError(f"step {node.step_id} waits for no time")

    def walk(self, arrivals: Arrivals, facts: Facts, now: datetime) -> list[Traveller]:
        """Take travellers from the steps at which they arrive to their next places.

        Args:
            arrivals: The travellers. It is emptied.
            facts: What is known of them.
            now: The time.

        Returns:
            All travellers, with their places.
        """
        done = self._exit(arrivals, facts)
        for node in self.nodes.values():
            group = arrivals.pop(node.step_id, [])
            if not group:
                continue
            match node:
                case EmailNode():
                    done += self._reach_email(node, group, now)
                case WaitNode():
                    done += self._reach_wait(arrivals, node, group, now)
                case UntilNode():
                    done += self._reach_date(arrivals, node, group, facts, now)
                case BranchNode():
                    ids = [traveller.recipient_id for traveller in group]
                    matching = facts.matching(node.condition, ids)
                    for traveller in group:
                        traveller.passed_id = node.step_id
                        arrivals[node.then_id if traveller.recipient_id in matching else node.else_id].append(traveller)
                case _:
                    assert_never(node)
        for traveller in arrivals.pop(None, []):
            traveller.place = Place(traveller.passed_id, EnrolmentState.COMPLETED)
            done.append(traveller)
        return done

    def _exit(self, arrivals: Arrivals, facts: Facts) -> list[Traveller]:
        """Take out the travellers who match the exit condition, and note who reached the goal."""
        everyone = [traveller for group in arrivals.values() for traveller in group]
        ids = [traveller.recipient_id for traveller in everyone]
        reached = facts.matching(self.goal, ids) if self.goal is not None and ids else set()
        leaving = facts.matching(self.exit, ids) if self.exit is not None and ids else set()
        for traveller in everyone:
            traveller.goal = traveller.recipient_id in reached
        done = []
        for step_id in list(arrivals):
            if step_id is None:
                continue  # No step follows: the recipient has completed the journey.
            for traveller in arrivals[step_id]:
                if traveller.recipient_id in leaving:
                    traveller.place = Place(traveller.from_id, EnrolmentState.EXITED, why=ExitReason.EXIT)
                    done.append(traveller)
            arrivals[step_id] = [one for one in arrivals[step_id] if one.recipient_id not in leaving]
        return done

    def _reach_email(self, node: EmailNode, group: Sequence[Traveller], now: datetime) -> Sequence[Traveller]:
        """Have the email planned. ``email_due`` of each traveller is then set."""
        for traveller in group:
            due = traveller.email_due
            if due is None:
                due = self._email_due(node, timedelta(), traveller)
            if now - due > LATE_PASS:
                late = replace_times(traveller, now.replace(second=0, microsecond=0))
                due = self._email_due(node, timedelta(), late)
            traveller.email_due = due
            traveller.place = Place(node.step_id)
        return group

    def _reach_wait(
        self, arrivals: Arrivals, node: WaitNode, group: Sequence[Traveller], now: datetime
    ) -> list[Traveller]:
        waiting = []
        for traveller in group:
            if node.email is not None:
                over = self._email_due(node.email, node.wait, traveller)
            else:
                over = wait_over(node.wait, traveller.after, traveller.planned, self._zone_of(traveller))
            if not self._wait(arrivals, node, traveller, over, now):
                waiting.append(traveller)
        return waiting

    def _reach_date(
        self, arrivals: Arrivals, node: UntilNode, group: Sequence[Traveller], facts: Facts, now: datetime
    ) -> list[Traveller]:
        dates = facts.dates(node.date, [traveller.recipient_id for traveller in group])
        waiting = []
        for traveller in group:
            date = dates.get(traveller.recipient_id)
            if date is None:
                traveller.place = Place(node.step_id, EnrolmentState.EXITED, why=ExitReason.NO_DATE)
                waiting.append(traveller)
                continue
            over = date
            if node.email is not None:
                over = self._email_due(node.email, timedelta(), replace_times(traveller, date))
            if not self._wait(arrivals, node, traveller, over, now):
                waiting.append(traveller)
        return waiting

    def _wait(
        self, arrivals: Arrivals, node: WaitNode | UntilNode, traveller: Traveller, over: datetime, now: datetime
    ) -> bool:
        """Place a traveller at a wait that is over at a time. Return whether it is over already: then pass it."""
        due_at = over - PLAN_AHEAD if node.email is not None else over
        if due_at <= now:
            self._pass(arrivals, node, traveller, over, now)
            return True
        traveller.place = Place(node.step_id, due_at=due_at)
        return False

    def _pass(
        self, arrivals: Arrivals, node: WaitNode | UntilNode, traveller: Traveller, over: datetime, now: datetime
    ) -> None:
        """Let a traveller arrive at the step after a wait. ``over``: when it was over, or the email after it is due."""
        traveller.passed_id = node.step_id
        if node.email is not None:
            traveller.email_due = over
        else:
            traveller.after = traveller.planned = over if now - over <= LATE_PASS else now
        arrivals[node.next_id].append(traveller)

    def _email_due(self, email: EmailNode, wait: timedelta, traveller: Traveller) -> datetime:
        """Return when an email after a wait is due. Cached: recipients share few time zones and minutes."""
        member, region = traveller.member, ""
        if self._window is not None:
            place = place_of(member.country, member.subdivision)
            region = self._window.region(place, member.time_zone or "", self._zone)
        key = email.step_id, wait, traveller.after, traveller.planned, member.time_zone or self._zone, region
        due = self._due.get(key)
        if due is None:
            plan, zone = replace(email.plan, wait=wait), ZoneInfo(key[4])
            due = plan.due_at(traveller.after, zone, planned=traveller.planned, region=region)
            self._due[key] = due
        return due

    def _zone_of(self, traveller: Traveller) -> ZoneInfo:
        return ZoneInfo(traveller.member.time_zone or self._zone)


def replace_times(traveller: Traveller, at: datetime) -> Traveller:
    """Return a copy of a traveller whose step before ended at a time, as planned."""
    return replace(traveller, after=at, planned=at)


def _nodes(steps: Sequence[Step], window: Window | None) -> dict[int, StepNode]:
    """Return the nodes by the ids of their steps, in reading order."""
    ids = {step.name: step.id for step in steps}
    nodes: dict[int, StepNode] = {}

    def node_at(settings: Mapping[str, Any], word: str) -> int | None:
        return ids[settings[word]] if settings[word] is not None else None

    for step in reversed(steps):  # The steps that follow one are later in the list.
        assert step.id is not None  # noqa: S101  (read from its table)
        settings = step.settings
        if step.kind is StepKind.IF:
            nodes[step.id] = BranchNode(
                step_id=step.id,
                condition=from_json(settings["if"]),
                then_id=node_at(settings, "then"),
                else_id=node_at(settings, "else"),
            )
            continue
        next_id = node_at(settings, "next")
        follower = nodes.get(next_id) if next_id is not None else None
        email = follower if isinstance(follower, EmailNode) else None
        match step.kind:
            case StepKind.EMAIL:
                nodes[step.id] = EmailNode(step_id=step.id, plan=email_plan(step, window), next_id=next_id)
            case StepKind.WAIT:
                wait = timedelta(milliseconds=settings["wait_ms"])
                if isinstance(follower, WaitNode):  # Consecutive waits are added.
                    wait, email, next_id = wait + follower.wait, follower.email, follower.next_id
                nodes[step.id] = WaitNode(step_id=step.id, wait=wait, email=email, next_id=next_id)
            case StepKind.WAIT_UNTIL:
                date = date_from_json(settings["wait_until"])
                nodes[step.id] = UntilNode(step_id=step.id, date=date, email=email, next_id=next_id)
            case _:
                assert_never(step.kind)
    return dict(reversed(nodes.items()))
