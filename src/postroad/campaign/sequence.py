"""Computes the sequence of a campaign: the order of its emails, and when each is due after the previous one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import takewhile
from typing import assert_never
from zoneinfo import ZoneInfo

from postroad.campaign.calendar import Window, add_days, due_at, time_on
from postroad.store.campaign import Step, StepKind
from postroad.store.variant_split import VariantSplit, split_of

_LATE = timedelta(hours=12)
"""An email that was late by at most this, and at most half of the wait, counts as sent at its due time."""
_DAY = timedelta(days=1)
_WEEK_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class EmailPlan:
    """An email step, and its wait after the previous email was accepted, or after the launch.

    Days of a wait are calendar days of the recipient; the rest is elapsed time. With a time of day, and in a wait of
    whole weeks, a delay of the previous email does not add up: the wait counts from that email's due time.
    """

    step_id: int
    name: str
    wait: timedelta
    at: time | None
    window: Window | None = None
    variants: VariantSplit | None = None

    def due_at(self, after: datetime, zone: ZoneInfo, *, planned: datetime | None = None, region: str = "") -> datetime:
        """Return when the email is due.

        Args:
            after: When the previous email was accepted, or the campaign was launched.
            zone: The recipient's time zone.
            planned: When the previous email was due. None: at ``after``.
            region: The region whose holidays apply.

        Returns:
            The time in UTC.
        """
        planned = after if planned is None else planned
        days, rest = divmod(self.wait, _DAY)
        if days > 0 and not rest and days % _WEEK_DAYS == 0:
            after = add_days(planned, _whole_weeks(_date(after, zone) - _date(planned, zone)), zone)
        elif self.at is not None and after - planned <= min(_LATE, self.wait / 2):
            after = min(after, planned)
        if self.at is not None and days > 0 and not rest:
            due = time_on(_day_of(after, self.at, zone) + days * _DAY, self.at, zone)
        else:
            due = due_at(add_days(after, days, zone) + rest, self.at, zone)
        return due if self.window is None else self._opens(self.window, due, zone, region)

    def _opens(self, window: Window, due: datetime, zone: ZoneInfo, region: str) -> datetime:
        """Return when the window is open: at the email's time of day if it is open then on the same day."""
        opens = window.opens(due, zone, region)
        again = due_at(opens, self.at, zone)
        same_day = _date(again, zone) == _date(opens, zone)
        return again if same_day and window.opens(again, zone, region) == again else opens


def wait_over(wait: timedelta, after: datetime, planned: datetime, zone: ZoneInfo) -> datetime:
    """Return when a wait is over that no email follows directly.

    Days are calendar days of the recipient. A small delay of the step before it does not add up, and a wait of whole
    weeks keeps the weekday, as in `EmailPlan`.

    Args:
        wait: The wait.
        after: When the step before it ended.
        planned: When that was due.
        zone: The recipient's time zone.

    Returns:
        The time in UTC.
    """
    days, rest = divmod(wait, _DAY)
    if days > 0 and not rest and days % _WEEK_DAYS == 0:
        after = add_days(planned, _whole_weeks(_date(after, zone) - _date(planned, zone)), zone)
    elif after - planned <= min(_LATE, wait / 2):
        after = min(after, planned)
    return add_days(after, days, zone) + rest


def _date(at: datetime, zone: ZoneInfo) -> date:
    return at.astimezone(zone).date()


def _day_of(due: datetime, at: time, zone: ZoneInfo) -> date:
    """Return the day for which an email was due: the previous one if a clock change moved ``at`` past midnight."""
    day = _date(due, zone)
    return day - _DAY if time_on(day - _DAY, at, zone) == due else day


def _whole_weeks(late: timedelta) -> int:
    """Round a delay to whole weeks, in days, so that the weekday stays the same."""
    return max(0, (late.days + _WEEK_DAYS // 2) // _WEEK_DAYS * _WEEK_DAYS)


def email_plan(step: Step, window: Window | None, wait: timedelta = timedelta()) -> EmailPlan:
    """Return the plan of an email step. ``wait``: the sum of the waits before it."""
    assert step.id is not None  # noqa: S101  (read from its table)
    at = step.settings.get("at")
    return EmailPlan(
        step_id=step.id,
        name=step.name,
        wait=wait,
        at=time.fromisoformat(at) if at else None,
        window=window,
        variants=split_of(step.campaign_id, step.name, step.settings),
    )


def email_sequence(steps: Sequence[Step], window: Window | None = None) -> list[EmailPlan]:
    """Return the emails of a campaign in order, each with the sum of the waits before it and the campaign's window.

    Raises:
        ValueError: The campaign is a journey: the order of its emails differs from recipient to recipient.
    """
    plans: list[EmailPlan] = []
    wait = timedelta()
    for step in steps:
        match step.kind:
            case StepKind.WAIT:
                wait += timedelta(milliseconds=step.settings["wait_ms"])
            case StepKind.EMAIL:
                plans.append(email_plan(step, window, wait))
                wait = timedelta()
            case StepKind.WAIT_UNTIL | StepKind.IF:
                raise ValueError(f"step {step.name} belongs to a journey")
            case _:
                assert_never(step.kind)
    return plans


def first_email(steps: Sequence[Step], window: Window | None = None) -> EmailPlan:
    """Return the first email of a campaign, with the waits before it.

    In a journey that begins with a condition or a date, it is the first one that a recipient may get, without its time
    of day: no email is due earlier.
    """
    before = list(takewhile(lambda step: step.kind is StepKind.WAIT, steps))
    email = next(step for step in steps if step.kind is StepKind.EMAIL)
    direct = steps[len(before)] is email
    [plan] = email_sequence([*before, email], window if direct else None)
    return plan if direct else replace(plan, at=None)
