"""One person's journey in plain Python: the steps as the tree of the file, without any table or batch.

It shares with the product how a condition is read, and when an email is due after a wait. All else is written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from postroad.campaign.journey import LATE_PASS, PLAN_AHEAD
from postroad.campaign.sequence import EmailPlan, wait_over
from postroad.field_types import FieldType
from postroad.segment.holds import date_of, holds
from postroad.segment.parse import parse, parse_date
from postroad.segment.person import Person, PersonTouch
from postroad.store.ledger import TouchState

Tree = Sequence[dict[str, Any]]
FIELDS = {"plan": FieldType.TEXT, "n": FieldType.NUMBER, "ends": FieldType.DATE}
WAITS = {"10m": timedelta(minutes=10), "5h": timedelta(hours=5), "1d": timedelta(days=1), "7d": timedelta(days=7)}


@dataclass
class Sent:
    """An email to the person: when it was due, and what became of it."""

    due_at: datetime
    state: TouchState = TouchState.PLANNED
    settled_at: datetime | None = None


@dataclass
class SimulatedPerson:
    """A person, the steps that are left, and the place."""

    address: str
    zone: str
    fields: dict[str, str]
    tree: Tree
    exit: str | None = None
    goal: str | None = None
    suppressed: bool = False
    state: str = "entering"
    step: str = ""
    why: str | None = None
    due_at: datetime | None = None
    reached_goal: bool = False
    sent: dict[str, Sent] = field(default_factory=dict)
    left: list[dict[str, Any]] = field(default_factory=list)
    """Steps that follow the place, with the rest of each branch that was taken."""

    def enter(self, now: datetime) -> None:
        self.left = list(self.tree)
        self.state, self.step = "active", self.tree[0]["name"]
        self._walk(now, now, now)

    def look(self, now: datetime) -> None:
        """Do what a pass at this time does for the person."""
        if self.state != "active":
            return
        email = self.sent.get(self.step)
        if email is not None and email.state is TouchState.PLANNED and self.suppressed:
            email.state = TouchState.SUPPRESSED
        if email is None:
            if self.due_at is not None and self.due_at <= now:
                self._leave_wait(self.due_at, now)
        elif email.state is TouchState.ACCEPTED:
            assert email.settled_at is not None
            self._walk(email.settled_at.replace(second=0, microsecond=0), email.due_at, now)
        elif email.state.ended:
            self._note_goal(now)
            self._end("exited", email.state.value)

    def _leave_wait(self, due_at: datetime, now: datetime) -> None:
        [here] = [step for step in self.left[:1] if step["name"] == self.step]
        if "until" in here:
            self._walk(due_at, due_at, now)  # The date may have changed.
            return
        rest = self._after_waits()
        if rest and "email" in rest[0]:
            self.left = rest
            if not self._exits(now):
                self._send(rest[0], due_at + PLAN_AHEAD, now)
            return
        self.left = rest
        clock = due_at if now - due_at <= LATE_PASS else now
        self._walk(clock, clock, now)

    def _after_waits(self) -> list[dict[str, Any]]:
        rest = list(self.left)
        while rest and "wait" in rest[0]:
            rest.pop(0)
        return rest

    def _walk(self, after: datetime, planned: datetime, now: datetime) -> None:
        self._note_goal(now)
        if self.left and self._exits(now):
            return
        while self.left:
            step = self.left[0]
            if "email" in step:
                plan = self._plan(step, timedelta())
                self._send(step, plan.due_at(after, ZoneInfo(self.zone), planned=planned), now)
                return
            if "if" in step:
                branch = step["then"] if holds(parse(step["if"], FIELDS), self._person(now)) else step["else"]
                self.left = [*branch, *self.left[1:]]
                self.step = step["name"]
                continue
            over = self._over(step, after, planned, now)
            if over is None:
                self.step = step["name"]
                self._end("exited", "no-date")
                return
            rest = self._after_waits() if "wait" in step else self.left[1:]
            email = rest[0] if rest and "email" in rest[0] else None
            look = over - PLAN_AHEAD if email else over
            if look > now:
                self.step, self.due_at = step["name"], look
                return
            self.left, self.step = rest, step["name"]
            if email:
                self._send(email, over, now)
                return
            after = planned = over if now - over <= LATE_PASS else now
        self._end("completed", None)

    def _over(self, step: dict[str, Any], after: datetime, planned: datetime, now: datetime) -> datetime | None:
        """Return when a wait is over, or when the email after it is due."""
        zone = ZoneInfo(self.zone)
        if "until" in step:
            at_ms = date_of(parse_date(step["until"], FIELDS), self._person(now))
            if at_ms is None:
                return None
            date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
            rest = self.left[1:]
            if rest and "email" in rest[0]:
                return self._plan(rest[0], timedelta()).due_at(date, zone, planned=date)
            return date
        wait, rest = timedelta(), list(self.left)
        while rest and "wait" in rest[0]:
            wait += WAITS[rest.pop(0)["wait"]]
        if rest and "email" in rest[0]:
            return self._plan(rest[0], wait).due_at(after, zone, planned=planned)
        return wait_over(wait, after, planned, zone)

    def _send(self, step: dict[str, Any], due: datetime, now: datetime) -> None:
        if now - due > LATE_PASS:
            minute = now.replace(second=0, microsecond=0)
            due = self._plan(step, timedelta()).due_at(minute, ZoneInfo(self.zone), planned=minute)
        self.left = self.left[self.left.index(step) + 1 :]
        self.step, self.due_at = step["name"], None
        self.sent[step["name"]] = Sent(due)
        if self.suppressed:
            self.sent[step["name"]].state = TouchState.SUPPRESSED
            self._note_goal(now)
            self._end("exited", "suppressed")

    def _plan(self, step: dict[str, Any], wait: timedelta) -> EmailPlan:
        at = time.fromisoformat(step["at"]) if step.get("at") else None
        return EmailPlan(step_id=0, name=step["name"], wait=wait, at=at)

    def _exits(self, now: datetime) -> bool:
        self._note_goal(now)
        if self.exit is None or not holds(parse(self.exit, FIELDS), self._person(now)):
            return False
        self._end("exited", "exit")
        return True

    def _note_goal(self, now: datetime) -> None:
        if self.goal is not None and holds(parse(self.goal, FIELDS), self._person(now)):
            self.reached_goal = True

    def _end(self, state: str, why: str | None) -> None:
        self.state, self.why, self.due_at = state, why, None

    def _person(self, now: datetime) -> Person:
        touches = tuple(
            PersonTouch(campaign_id=1, step=name, state=email.state, settled_at=email.settled_at)
            for name, email in self.sent.items()
        )
        return Person(now=now, address=self.address, fields=self.fields, touches=touches, campaign_id=1)
